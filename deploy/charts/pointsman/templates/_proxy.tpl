{{/* envoy or agentgateway; empty without a proxy. */}}
{{- define "pointsman.proxyType" -}}
{{- if eq (include "pointsman.hasProxy" .) "true" -}}
{{ .Values.standalone.proxy.type | default "envoy" }}
{{- end -}}
{{- end }}

{{/* Files of the proxy's ConfigMap. A file of the user takes the place of the chart's own. */}}
{{- define "pointsman.proxyFiles" -}}
{{- $given := (.Values.standalone.proxy.configMap | default dict).data | default dict -}}
{{- if and (eq (include "pointsman.proxyType" .) "agentgateway") (not (hasKey $given "config.yaml")) }}
config.yaml: |
  {{- include "pointsman.agentgatewayConfig" . | nindent 2 }}
{{- else if and (ne (include "pointsman.proxyType" .) "agentgateway") (not (hasKey $given "envoy.yaml")) }}
envoy.yaml: |
  {{- include "pointsman.envoyConfig" . | nindent 2 }}
{{- end }}
{{- with $given }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Configuration of agentgateway as the proxy of the standalone mode: everything goes where the picker says. */}}
{{- define "pointsman.agentgatewayConfig" -}}
{{- $ports := splitList "," (include "pointsman.targetPorts" .) -}}
{{- $name := get .Values.inferencePool.modelServers.matchLabels "app" | default .Release.Name -}}
config:
  statsAddr: 0.0.0.0:15020
  readinessAddr: 0.0.0.0:15021
binds:
- port: {{ include "pointsman.proxyContainerPort" . }}
  listeners:
  - name: default
    protocol: HTTP
    routes:
    - name: picked
      matches:
      - path: {pathPrefix: /}
      backends:
      - service:
          name: {{ printf "%s/%s" .Release.Namespace $name | quote }}
          port: {{ first $ports }}
        policies:
          inferenceRouting:
            endpointPicker:
              host: "{{ ternary (include "pointsman.name" .) "127.0.0.1" (eq (include "pointsman.hasProxyService" .) "true") }}:{{ .Values.inferenceExtension.extProcPort }}"
            destinationMode: passthrough
services:
- name: {{ $name | quote }}
  namespace: {{ .Release.Namespace | quote }}
  hostname: {{ $name | quote }}
  vips: []
  ports:
    {{- range $ports }}
    {{ . }}: {{ . }}
    {{- end }}
{{- end }}

{{/* What the values say of the proxy's container comes before what the chart says. */}}
{{- define "pointsman.proxyContainer" -}}
{{- $proxy := .Values.standalone.proxy -}}
{{- $agentgateway := eq (include "pointsman.proxyType" .) "agentgateway" -}}
- name: {{ $proxy.name | default (ternary "agentgateway" "envoy" $agentgateway) }}
  image: {{ ternary "cr.agentgateway.dev/agentgateway:latest" $proxy.image (and $agentgateway (contains "envoyproxy/envoy" $proxy.image)) }}
  imagePullPolicy: {{ $proxy.imagePullPolicy }}
  {{- with $proxy.command }}
  command:
    {{- toYaml (ternary . (list .) (kindIs "slice" .)) | nindent 2 }}
  {{- end }}
  args:
  {{- if $proxy.args }}
  {{- range $proxy.args }}
  - {{ include "pointsman.scalar" . | quote }}
  {{- end }}
  {{- else if $agentgateway }}
  - -f
  - /config/config.yaml
  {{- else }}
  - --config-path
  - /etc/envoy/envoy.yaml
  - --log-level
  - warn
  - --concurrency
  - {{ $proxy.concurrency | quote }}
  # Would need shared memory, and restarts are the Deployment's business.
  - --disable-hot-restart
  {{- end }}
  {{- with $proxy.env }}
  env:
    {{- toYaml . | nindent 2 }}
  {{- end }}
  ports:
  - name: http
    containerPort: {{ include "pointsman.proxyContainerPort" . }}
  {{- if $agentgateway }}
  - name: stats
    containerPort: 15020
  - name: readiness
    containerPort: 15021
  {{- else }}
  - name: envoy-admin
    containerPort: 19001
  {{- end }}
  {{- range $proxy.ports }}
  {{- if not (has (int .containerPort) (list (include "pointsman.proxyContainerPort" $ | int) 15020 15021 19001)) }}
  - {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- end }}
  {{- range $probe := list "livenessProbe" "startupProbe" }}
  {{- with get $proxy $probe }}
  {{ $probe }}:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- end }}
  readinessProbe:
    {{- if $proxy.readinessProbe }}
    {{- toYaml $proxy.readinessProbe | nindent 4 }}
    {{- else }}
    httpGet:
      path: {{ ternary "/healthz/ready" "/ready" $agentgateway }}
      port: {{ ternary "readiness" "envoy-admin" $agentgateway }}
    periodSeconds: 5
    timeoutSeconds: 1
    failureThreshold: 1
    {{- end }}
  lifecycle:
    preStop:
      # Told to end, Envoy cuts off what it serves. New connections stay away meanwhile. Beside a picker it stays as long as that one.
      sleep:
        seconds: {{ ternary (include "pointsman.endSeconds" . | int) (int $proxy.drainSeconds) (eq (include "pointsman.hasSidecar" .) "true") }}
  resources:
    {{- toYaml $proxy.resources | nindent 4 }}
  {{- with include "pointsman.containerSecurity" (list . $proxy.securityContext) | fromYaml }}
  securityContext:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  volumeMounts:
  - name: envoy
    mountPath: {{ ternary "/config" "/etc/envoy" $agentgateway }}
    readOnly: true
  {{- with $proxy.volumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- define "pointsman.proxyVolumes" -}}
- name: envoy
  configMap:
    name: {{ include "pointsman.proxyName" . }}
{{- with .Values.standalone.proxy.volumes }}
{{ tpl (toYaml .) $ }}
{{- end }}
{{- end }}
