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

{{/*
The pod's security context. Other people's images beside the picker may need a user of their own, so the ids and the ban on root move to the
containers that the chart knows.
*/}}
{{- define "pointsman.podSecurity" -}}
{{- $context := include "pointsman.security" (list . .Values.inferenceExtension.podSecurityContext) | fromYaml -}}
{{- if eq (include "pointsman.isShared" .) "true" -}}
{{- $context = omit $context "runAsNonRoot" "runAsUser" "runAsGroup" -}}
{{- end -}}
{{ toYaml $context }}
{{- end }}

{{/* The security context of one of the chart's containers in the picker's pod. Takes a list of the root and the context. */}}
{{- define "pointsman.containerSecurity" -}}
{{- $root := first . -}}
{{- $context := include "pointsman.security" . | fromYaml -}}
{{- if eq (include "pointsman.isShared" $root) "true" -}}
{{- $pod := include "pointsman.security" (list $root $root.Values.inferenceExtension.podSecurityContext) | fromYaml -}}
{{- $context = merge $context (pick $pod "runAsNonRoot" "runAsUser" "runAsGroup") -}}
{{- end -}}
{{ toYaml $context }}
{{- end }}
