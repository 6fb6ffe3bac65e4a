{{/* Configuration files by name. */}}
{{- define "pointsman.configFiles" -}}
{{- $extension := .Values.inferenceExtension }}
{{- $own := dict }}
{{- if $extension.pluginsConfig }}
{{- $_ := set $own $extension.pluginsConfigFile (toYaml $extension.pluginsConfig) }}
{{- end }}
{{- range $name, $text := $extension.pluginsCustomConfig }}
{{- $_ := set $own $name (ternary $text (toYaml $text) (kindIs "string" $text)) }}
{{- end }}
{{- if not (hasKey $own "default-plugins.yaml") }}
default-plugins.yaml: |
  {{- include "pointsman.defaultPlugins" . | nindent 2 }}
{{- end }}
{{- if and (not (hasKey $own "payload-agnostic.yaml")) (or (eq .Values.translated.shape "router") (eq $extension.pluginsConfigFile "payload-agnostic.yaml")) }}
payload-agnostic.yaml: |
  # For requests whose form is not known: by load, and by session.
  apiVersion: llm-d.ai/v1alpha1
  kind: EndpointPickerConfig
  plugins:
  - type: passthrough-parser
  - type: active-request-scorer
  - type: session-affinity-scorer
  requestHandler:
    parsers:
    - pluginRef: passthrough-parser
  schedulingProfiles:
  - name: default
    plugins:
    - pluginRef: active-request-scorer
      weight: 1
    - pluginRef: session-affinity-scorer
      weight: 1
{{- end }}
{{- if and (eq $extension.pluginsConfigFile "plugins-v2.yaml") (not (hasKey $own "plugins-v2.yaml")) }}
plugins-v2.yaml: |
  # The second file of the chart `inferencepool` before 1.0, written as it is today.
  apiVersion: llm-d.ai/v1alpha1
  kind: EndpointPickerConfig
  plugins:
  - type: queue-scorer
  - type: kv-cache-utilization-scorer
  - type: prefix-cache-scorer
  - type: max-score-picker
  schedulingProfiles:
  - name: default
    plugins:
    - pluginRef: queue-scorer
      weight: 1
    - pluginRef: kv-cache-utilization-scorer
      weight: 1
    - pluginRef: prefix-cache-scorer
      weight: 1
    - pluginRef: max-score-picker
{{- end }}
{{- if $own }}
{{ toYaml $own }}
{{- end }}
{{- end }}

{{/* The chart's own configuration. */}}
{{- define "pointsman.defaultPlugins" -}}
{{- $type := .Values.inferencePool.modelServerType -}}
{{- $source := .Values.inferenceExtension.metricsDataSource -}}
{{- $latency := dig "enabled" false (.Values.inferenceExtension.latencyPredictor | default dict) -}}
{{- $parsers := include "pointsman.parsers" . | fromJsonArray -}}
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: queue-scorer
- type: kv-cache-utilization-scorer
- type: prefix-cache-scorer
- type: metrics-data-source
  {{- with $source }}
  parameters:
    {{- toYaml . | nindent 4 }}
  {{- end }}
- type: core-metrics-extractor
  {{- if ne $type "vllm" }}
  parameters:
    defaultEngine: {{ $type }}
  {{- end }}
{{- range $parsers }}
- type: {{ . }}
{{- end }}
{{- if $latency }}
- type: predicted-latency-producer
# Servers that have nearly the whole prompt come first; those that have much of it, among the ones that keep the promised latency.
- name: strict-affinity-filter
  type: prefix-cache-affinity-filter
  parameters:
    affinityThreshold: 0.99
    ttftSource: latencyPredictor
    maxTTFTPenaltyMs: 5000
- name: loose-affinity-filter
  type: prefix-cache-affinity-filter
  parameters:
    affinityThreshold: 0.8
    ttftSource: latencyPredictor
    maxTTFTPenaltyMs: 5000
- type: slo-headroom-tier-filter
- type: latency-scorer
- type: weighted-random-picker
- type: latency-slo-admitter
{{- end }}
schedulingProfiles:
- name: default
  plugins:
  {{- if $latency }}
  - pluginRef: strict-affinity-filter
  - pluginRef: slo-headroom-tier-filter
  - pluginRef: loose-affinity-filter
  - pluginRef: latency-scorer
  - pluginRef: weighted-random-picker
  {{- else }}
  - pluginRef: queue-scorer
    weight: 2
  - pluginRef: kv-cache-utilization-scorer
    weight: 2
  - pluginRef: prefix-cache-scorer
    weight: 3
  {{- end }}
{{- with $parsers }}
requestHandler:
  parsers:
  {{- range . }}
  - pluginRef: {{ . }}
  {{- end }}
{{- end }}
dataLayer:
  sources:
  - pluginRef: metrics-data-source
    extractors:
    - pluginRef: core-metrics-extractor
{{- end }}

{{/* Parsers of the chart's own configuration, as a JSON list; empty means those that are there anyway. */}}
{{- define "pointsman.parsers" -}}
{{- $extension := .Values.inferenceExtension -}}
{{- $pool := .Values.inferencePool -}}
{{- $parsers := $extension.parsers | default list -}}
{{- if and (not $parsers) $extension.parser -}}{{- $parsers = list $extension.parser -}}{{- end -}}
{{- if and (eq $pool.modelServerType "vllm") (eq $pool.modelServerProtocol "grpc") -}}
{{- $parsers = list "vllmgrpc-parser" -}}
{{- else if and (not $parsers) (eq $pool.modelServerType "triton") -}}
{{- $parsers = list "passthrough-parser" -}}
{{- end -}}
{{ toJson $parsers }}
{{- end }}

{{/*
Engine of the model servers, where the configuration does not say it: the chart's own says it, and so does one whose core-metrics-extractor names an
engine; any other is read with the engine that inferencePool.modelServerType names. Empty where nothing has to be said.
*/}}
{{- define "pointsman.defaultEngine" -}}
{{- $extension := .Values.inferenceExtension -}}
{{- $document := $extension.pluginsConfig -}}
{{- if not $document -}}
{{- $text := get $extension.pluginsCustomConfig $extension.pluginsConfigFile -}}
{{- $document = $text -}}
{{- if kindIs "string" $text -}}{{- $document = fromYaml $text -}}{{- end -}}
{{- end -}}
{{- $told := or (empty $document) (eq .Values.inferencePool.modelServerType "vllm") -}}
{{- $plugins := get $document "plugins" -}}
{{- if not (kindIs "slice" $plugins) -}}{{- $plugins = list -}}{{- end -}}
{{- range $plugins -}}
{{- if kindIs "map" . -}}
{{- $parameters := get . "parameters" -}}
{{- if and (has (toString .type) (list "core-metrics-extractor" "model-server-protocol-metrics")) (kindIs "map" $parameters) -}}
{{- range $key, $_ := $parameters -}}
{{- if has (lower $key) (list "defaultengine" "engineconfigs") -}}{{- $told = true -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if not $told -}}{{ .Values.inferencePool.modelServerType }}{{- end -}}
{{- end }}

{{/* Labels of the check before an upgrade. No Service, monitor or budget selects them. */}}
{{- define "pointsman.checkLabels" -}}
app.kubernetes.io/name: {{ include "pointsman.name" . }}-check
app.kubernetes.io/part-of: pointsman
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}
