{{/* A duration such as 1m30s in whole seconds, rounded up. */}}
{{- define "pointsman.seconds" -}}
{{- $units := dict "h" 3600.0 "m" 60.0 "s" 1.0 "ms" 0.001 "us" 0.000001 "µs" 0.000001 "ns" 0.000000001 -}}
{{- $total := 0.0 -}}
{{- range regexFindAll "[0-9.]+(ns|us|µs|ms|h|m|s)" . -1 -}}
{{- $unit := regexFind "[a-zµ]+$" . -}}
{{- $total = addf $total (mulf (trimSuffix $unit . | float64) (get $units $unit)) -}}
{{- end -}}
{{ ceil $total | int64 }}
{{- end }}

{{/* "true" if an Envoy runs in the picker's pod. */}}
{{- define "pointsman.hasSidecar" -}}
{{ and (eq (include "pointsman.hasProxy" .) "true") (eq .Values.standalone.proxy.mode "sidecar") }}
{{- end }}

{{/*
Seconds for which a picker that is to end takes new requests. Beside an Envoy that is as long as Envoy itself goes on serving: whoever has a
connection to that Envoy sends requests to the very end, and only this picker can answer them.
*/}}
{{- define "pointsman.drainSeconds" -}}
{{- $given := include "pointsman.flag" (list . "drain-timeout") -}}
{{- if $given -}}
{{ include "pointsman.seconds" $given }}
{{- else -}}
{{ ternary (int .Values.standalone.proxy.drainSeconds) 30 (eq (include "pointsman.hasSidecar" .) "true") }}
{{- end -}}
{{- end }}

{{/* Seconds for which it then waits for open requests. Beside an Envoy that is gone by then there are none. */}}
{{- define "pointsman.lingerSeconds" -}}
{{- $given := include "pointsman.flag" (list . "linger-timeout") -}}
{{- if $given -}}
{{ include "pointsman.seconds" $given }}
{{- else -}}
{{ ternary 0 90 (eq (include "pointsman.hasSidecar" .) "true") }}
{{- end -}}
{{- end }}

{{/* Seconds until the picker has ended by itself. */}}
{{- define "pointsman.endSeconds" -}}
{{ add (include "pointsman.drainSeconds" . | int) (include "pointsman.lingerSeconds" . | int) }}
{{- end }}
