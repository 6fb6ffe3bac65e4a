{{/* Containers that other charts put beside the picker, as a list. What they run is not the chart's business. */}}
{{- define "pointsman.sidecars" -}}
{{- $all := list -}}
{{- $sidecar := .Values.inferenceExtension.sidecar | default dict -}}
{{- if $sidecar.enabled -}}
{{- $container := dict "name" ($sidecar.name | default "sidecar") "imagePullPolicy" "IfNotPresent" -}}
{{- range $key, $value := omit $sidecar "enabled" "volumes" "configMap" "proxyType" "presets" "agentgateway" -}}
{{- if $value -}}{{- $_ := set $container $key $value -}}{{- end -}}
{{- end -}}
{{- if kindIs "string" $container.command -}}{{- $_ := set $container "command" (list $container.command) -}}{{- end -}}
{{- $all = append $all $container -}}
{{- end -}}
{{- with include "pointsman.tokenizer" . | fromYaml -}}
{{- $all = append $all .container -}}
{{- end -}}
{{- if $all }}
{{ toYaml $all }}
{{- end }}
{{- end }}

{{/* The server that renders prompts for token-producer, as the charts of llm-d-router run it: its container, volumes and containers before it. */}}
{{- define "pointsman.tokenizer" -}}
{{- $tokenizer := (.Values.router | default dict).tokenizer | default dict -}}
{{- if and $tokenizer.enabled (or $tokenizer.modelName $tokenizer.args) -}}
{{- $port := $tokenizer.port | default 8000 | int -}}
{{- $image := merge (deepCopy ($tokenizer.image | default dict)) (dict "registry" "docker.io" "repository" "vllm/vllm-openai-cpu" "tag" "v0.19.1" "pullPolicy" "IfNotPresent") -}}
{{- /* Its image runs as root. */ -}}
{{- $home := "/root" -}}
{{- $rust := eq ($tokenizer.flavor | default "python") "rust" -}}
container:
  name: vllm-render
  image: {{ $image.registry }}/{{ $image.repository }}:{{ $image.tag }}
  imagePullPolicy: {{ $image.pullPolicy }}
  command:
    {{- toYaml ($tokenizer.command | default (ternary (list "vllm-rs" "render") (list "vllm" "launch" "render") $rust)) | nindent 4 }}
  args:
    {{- toYaml (concat ($tokenizer.args | default (list $tokenizer.modelName (printf "--port=%d" $port))) ($tokenizer.extraArgs | default list)) | nindent 4 }}
  ports:
  - name: render-http
    containerPort: {{ $port }}
  env:
    {{- if $tokenizer.env }}
    {{- toYaml $tokenizer.env | nindent 4 }}
    {{- else }}
    - name: HF_TOKEN
      valueFrom:
        secretKeyRef:
          name: llm-d-hf-token
          key: HF_TOKEN
    {{- end }}
  readinessProbe:
    {{- if $tokenizer.readinessProbe }}
    {{- toYaml $tokenizer.readinessProbe | nindent 4 }}
    {{- else }}
    httpGet:
      path: /health
      port: render-http
    initialDelaySeconds: 30
    periodSeconds: 10
    timeoutSeconds: 5
    failureThreshold: 60
    {{- end }}
  resources:
    {{- toYaml ($tokenizer.resources | default (dict "requests" (dict "cpu" "4" "memory" "8Gi"))) | nindent 4 }}
  {{- with $tokenizer.securityContext }}
  securityContext:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  volumeMounts:
  - name: model-cache
    mountPath: {{ $home }}/.cache/huggingface
  {{- with $tokenizer.volumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
volumes:
- name: model-cache
  emptyDir: {}
{{- with $tokenizer.volumes }}
{{ toYaml . }}
{{- end }}
{{- with $tokenizer.initContainers }}
before:
{{ toYaml . }}
{{- end }}
{{- end -}}
{{- end }}

{{- define "pointsman.initContainers" -}}
{{- with include "pointsman.tokenizer" . | fromYaml -}}
{{- with .before }}{{ toYaml . }}{{- end }}
{{- end -}}
{{- end }}

{{- define "pointsman.sidecarVolumes" -}}
{{- $all := list -}}
{{- $sidecar := .Values.inferenceExtension.sidecar | default dict -}}
{{- if and $sidecar.enabled $sidecar.volumes -}}
{{- $all = concat $all (tpl (toYaml $sidecar.volumes) . | fromYamlArray) -}}
{{- end -}}
{{- with include "pointsman.tokenizer" . | fromYaml -}}
{{- $all = concat $all .volumes -}}
{{- end -}}
{{- if $all }}
{{ toYaml $all }}
{{- end }}
{{- end }}

{{/* "true" if somebody else's container is in the picker's pod. */}}
{{- define "pointsman.isShared" -}}
{{ not (empty (include "pointsman.sidecars" . | fromYamlArray)) }}
{{- end }}
