{{/* Configuration files by name. */}}
{{- define "pointsman.configFiles" -}}
{{- $type := .Values.inferencePool.modelServerType }}
{{- if not (hasKey .Values.inferenceExtension.pluginsCustomConfig "default-plugins.yaml") }}
default-plugins.yaml: |
  apiVersion: llm-d.ai/v1alpha1
  kind: EndpointPickerConfig
  plugins:
  - type: queue-scorer
  - type: kv-cache-utilization-scorer
  - type: prefix-cache-scorer
  - type: metrics-data-source
  - type: core-metrics-extractor
    {{- if ne $type "vllm" }}
    parameters:
      defaultEngine: {{ $type }}
    {{- end }}
  schedulingProfiles:
  - name: default
    plugins:
    - pluginRef: queue-scorer
      weight: 2
    - pluginRef: kv-cache-utilization-scorer
      weight: 2
    - pluginRef: prefix-cache-scorer
      weight: 3
  dataLayer:
    sources:
    - pluginRef: metrics-data-source
      extractors:
      - pluginRef: core-metrics-extractor
{{- end }}
{{- range $name, $text := .Values.inferenceExtension.pluginsCustomConfig }}
{{ $name }}: |
  {{- $text | trim | nindent 2 }}
{{- end }}
{{- end }}

{{/* Labels of the check before an upgrade. No Service, monitor or budget selects them. */}}
{{- define "pointsman.checkLabels" -}}
app.kubernetes.io/name: {{ include "pointsman.name" . }}-check
app.kubernetes.io/part-of: pointsman
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}
