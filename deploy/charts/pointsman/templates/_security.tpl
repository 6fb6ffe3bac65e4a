{{/* "true" on OpenShift, which gives each namespace a range of user ids and refuses every other one. */}}
{{- define "pointsman.isOpenshift" -}}
{{- $found := false -}}
{{- range .Capabilities.APIVersions -}}
{{- if or (eq . "security.openshift.io") (hasPrefix "security.openshift.io/" .) -}}
{{- $found = true -}}
{{- end -}}
{{- end -}}
{{ $found }}
{{- end }}

{{/*
A security context of the values, of a pod or of a container. On OpenShift the chart's own ids are left out, and the ones of the namespace's range
take their place; ids of the user stay. Takes a list of the root and the context.
*/}}
{{- define "pointsman.security" -}}
{{- $context := deepCopy (last . | default dict) -}}
{{- if eq (include "pointsman.isOpenshift" (first .)) "true" -}}
{{- range list "runAsUser" "runAsGroup" "fsGroup" -}}
{{- if eq (get $context . | toString) "65532" -}}
{{- $_ := unset $context . -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{ toYaml $context }}
{{- end }}
