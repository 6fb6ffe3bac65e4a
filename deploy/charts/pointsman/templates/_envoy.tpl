{{/*
Envoy's configuration: files/envoy.yaml, which is deploy/envoy/envoy.yaml, with what a pod needs besides. Failure mode stays closed: a request
without a decision has no destination, or only the one that the client itself wrote into the header.
*/}}
{{- define "pointsman.envoyConfig" -}}
{{- $proxy := .Values.standalone.proxy -}}
{{- $config := .Files.Get "files/envoy.yaml" | fromYaml -}}
{{- range $config.static_resources.listeners -}}
{{- $_ := set .address "socket_address" (include "pointsman.envoyAddress" (list $proxy.listenAddress (include "pointsman.proxyContainerPort" $)) | fromYaml) -}}
{{- end -}}
{{- range $config.static_resources.clusters -}}
{{- if eq .name "ext_proc" -}}
{{- $address := (first (first .load_assignment.endpoints).lb_endpoints).endpoint.address.socket_address -}}
{{- $_ := set $address "port_value" $.Values.inferenceExtension.extProcPort -}}
{{- if eq $proxy.mode "service" -}}
{{- $_ := set . "type" "STRICT_DNS" -}}
{{- $_ := set $address "address" (include "pointsman.name" $) -}}
{{- end -}}
{{- if eq (include "pointsman.secure" $) "false" -}}
{{- $_ := unset . "transport_socket" -}}
{{- range .health_checks -}}
{{- $_ := unset . "tls_options" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $more := include "pointsman.envoyAdmin" . | fromYaml -}}
{{- $_ := set $config.static_resources "listeners" (concat $config.static_resources.listeners $more.listeners) -}}
{{- $_ := set $config.static_resources "clusters" (concat $config.static_resources.clusters $more.clusters) -}}
{{ toYaml $config }}
{{- end }}

{{/* Takes an address and a port. */}}
{{- define "pointsman.envoyAddress" -}}
address: {{ first . | quote }}
port_value: {{ last . }}
{{- if contains ":" (first .) }}
ipv4_compat: true
{{- end }}
{{- end }}

{{/* The admin interface stays on loopback; this shows two of its pages: whether Envoy is ready, and its metrics. */}}
{{- define "pointsman.envoyAdmin" -}}
listeners:
- name: ready
  address:
    socket_address:
      {{- include "pointsman.envoyAddress" (list .Values.standalone.proxy.listenAddress 19001) | nindent 6 }}
  filter_chains:
  - filters:
    - name: envoy.filters.network.http_connection_manager
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
        stat_prefix: ready
        route_config:
          name: admin
          virtual_hosts:
          - name: admin
            domains: ["*"]
            routes:
            - match: {path: /stats/prometheus}
              route: {cluster: admin}
        http_filters:
        - name: envoy.filters.http.health_check
          typed_config:
            "@type": type.googleapis.com/envoy.extensions.filters.http.health_check.v3.HealthCheck
            pass_through_mode: false
            headers:
            - name: ":path"
              string_match: {exact: /ready}
        - name: envoy.filters.http.router
          typed_config:
            "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
clusters:
- name: admin
  type: STATIC
  connect_timeout: 1s
  load_assignment:
    cluster_name: admin
    endpoints:
    - lb_endpoints:
      - endpoint:
          address:
            socket_address: {address: 127.0.0.1, port_value: 19000}
{{- end }}
