{{/* Name of all that belongs to the picker. */}}
{{- define "pointsman.name" -}}
{{ .Release.Name | lower | trunc 40 }}-epp
{{- end }}

{{/* Name of what has no namespace. A namespace has no dot, so that the first one says where it ends: no two releases share a name. */}}
{{- define "pointsman.clusterName" -}}
{{ .Release.Namespace }}.{{ .Release.Name }}-epp
{{- end }}

{{/* Name of the standalone mode's Envoys and of their Service. */}}
{{- define "pointsman.proxyName" -}}
{{ .Release.Name | lower | trunc 40 }}-proxy
{{- end }}

{{/*
By this the Deployment finds its pods. It cannot be changed later: so a Deployment that is there keeps its own, whichever chart made it, and a new
one gets the label of the chart whose values are given. Where no cluster is asked while rendering, inferenceExtension.selectorLabels says it.
*/}}
{{- define "pointsman.selector" -}}
{{- $name := include "pointsman.name" . -}}
{{- $running := lookup "apps/v1" "Deployment" .Release.Namespace $name | default dict -}}
{{- $shape := .Values.translated.shape -}}
{{- $key := "inferencepool" -}}
{{- if eq $shape "router" -}}
{{- $key = ternary "llm-d-router-gateway" "llm-d-router-standalone" (eq (include "pointsman.hasPool" .) "true") -}}
{{- else if eq $shape "standalone" -}}
{{- $key = "epp" -}}
{{- end -}}
{{- .Values.inferenceExtension.selectorLabels | default (dig "spec" "selector" "matchLabels" dict $running) | default (dict $key $name) | toYaml -}}
{{- end }}

{{/* Labels of the picker's pods. */}}
{{- define "pointsman.podLabels" -}}
{{- $own := include "pointsman.labels" . | fromYaml -}}
{{- $given := dict -}}
{{- range $key, $value := .Values.inferenceExtension.podLabels -}}{{- $_ := set $given $key (include "pointsman.scalar" $value) -}}{{- end -}}
{{- merge (include "pointsman.selector" . | fromYaml) $given $own | toYaml -}}
{{- end }}

{{/* "true" if there is an InferencePool. */}}
{{- define "pointsman.hasPool" -}}
{{ or (not .Values.standalone.enabled) (.Values.standalone.inferencePool | default false) }}
{{- end }}

{{/* "true" if a proxy of the chart's own stands in front. */}}
{{- define "pointsman.hasProxy" -}}
{{ and .Values.standalone.enabled (ne (get .Values.standalone.proxy "enabled" | toString) "false") }}
{{- end }}

{{/* "true" if that proxy is a Deployment of its own. */}}
{{- define "pointsman.hasProxyService" -}}
{{ and (eq (include "pointsman.hasProxy" .) "true") (eq .Values.standalone.proxy.mode "service") }}
{{- end }}

{{- define "pointsman.labels" -}}
app.kubernetes.io/name: {{ include "pointsman.name" . }}
app.kubernetes.io/part-of: pointsman
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/* Port that Envoy itself listens on. Without rights it may not open one below 1024 on every node, so the Service alone has those. */}}
{{- define "pointsman.proxyContainerPort" -}}
{{- $port := int .Values.standalone.proxy.port -}}
{{ ternary 8081 $port (lt $port 1024) }}
{{- end }}

{{- define "pointsman.proxySelector" -}}
app.kubernetes.io/name: {{ include "pointsman.proxyName" . }}
{{- end }}

{{- define "pointsman.proxyLabels" -}}
{{ include "pointsman.proxySelector" . }}
app.kubernetes.io/part-of: pointsman
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "pointsman.image" -}}
{{- with .Values.inferenceExtension.image -}}
{{ .hub }}/{{ .name }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end }}

{{/* API group of the pool. The version may be missing. */}}
{{- define "pointsman.poolGroup" -}}
{{ first (splitList "/" .Values.inferencePool.apiVersion) }}
{{- end }}

{{/* "true" if the pool has the older form. */}}
{{- define "pointsman.poolIsOld" -}}
{{ eq (include "pointsman.poolGroup" .) "inference.networking.x-k8s.io" }}
{{- end }}

{{/* Ports of the model servers, with commas. */}}
{{- define "pointsman.targetPorts" -}}
{{- $numbers := list -}}
{{- range .Values.inferencePool.targetPorts -}}
{{- $numbers = append $numbers (int .number) -}}
{{- end -}}
{{- with .Values.inferencePool.targetPortNumber -}}
{{- $number := int . -}}
{{- if and $numbers (ne (list $number | toJson) ($numbers | toJson)) -}}
{{- fail "inferencePool.targetPortNumber and inferencePool.targetPorts differ: give one of them" -}}
{{- end -}}
{{- $numbers = list $number -}}
{{- end -}}
{{ join "," ($numbers | default (list 8000)) }}
{{- end }}

{{/* Flags of the user as {"all": [{name, value}]}: a list stays in order, a map is sorted by name. No value means that the name stands alone.
A name that has its value with it, as in `v=4`, is taken apart. */}}
{{- define "pointsman.flags" -}}
{{- $all := list -}}
{{- if kindIs "map" .Values.inferenceExtension.flags -}}
{{- range $name, $value := .Values.inferenceExtension.flags -}}
{{- $all = append $all (dict "name" $name "value" $value) -}}
{{- end -}}
{{- else -}}
{{- $all = .Values.inferenceExtension.flags | default list -}}
{{- end -}}
{{- $clean := list -}}
{{- range $all -}}
{{- $value := ternary "" (include "pointsman.scalar" .value) (kindIs "invalid" .value) -}}
{{- $name := regexReplaceAll "^-+" .name "" -}}
{{- $alone := kindIs "invalid" .value -}}
{{- if and (contains "=" $name) (empty $value) -}}
{{- $alone = false -}}
{{- $value = regexReplaceAll "^[^=]*=" $name "" -}}
{{- $name = regexReplaceAll "=.*$" $name "" -}}
{{- end -}}
{{- $clean = append $clean (dict "name" $name "value" $value "alone" $alone) -}}
{{- end -}}
{{ dict "all" $clean | toJson }}
{{- end }}

{{/* A number as it was written: 4000000, not 4e+06. */}}
{{- define "pointsman.scalar" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) -}}{{ int64 . }}{{- else -}}{{ . }}{{- end -}}
{{- end }}

{{/* What the user set a flag to, empty if not at all; "true" if it stands alone. The last one counts. Takes a list of the root and the flag's name. */}}
{{- define "pointsman.flag" -}}
{{- $found := "" -}}
{{- range (include "pointsman.flags" (first .) | fromJson).all -}}
{{- if eq .name (last $) -}}
{{- $found = ternary "true" .value .alone -}}
{{- end -}}
{{- end -}}
{{ $found }}
{{- end }}

{{/* The same of a boolean flag: "true" or "false". */}}
{{- define "pointsman.booleanFlag" -}}
{{ include "pointsman.flag" . | lower }}
{{- end }}

{{/* "true" if readers of the metrics port have to show a token: unless the values say otherwise, monitoring or not. */}}
{{- define "pointsman.metricsAuth" -}}
{{- $wanted := .Values.inferenceExtension.monitoring.prometheus.auth.enabled | toString -}}
{{ include "pointsman.booleanFlag" (list . "metrics-endpoint-auth") | default $wanted }}
{{- end }}

{{/* "true" if the chart brings somebody who may read metrics, and a token. */}}
{{- define "pointsman.hasReader" -}}
{{- with .Values.inferenceExtension.monitoring -}}
{{ and (or .prometheus.enabled .gke.enabled) (eq (include "pointsman.metricsAuth" $) "true") }}
{{- end -}}
{{- end }}

{{/* "true" if port 9002 speaks TLS. */}}
{{- define "pointsman.secure" -}}
{{ include "pointsman.booleanFlag" (list . "secure-serving") | default "true" }}
{{- end }}

{{/* "true" if one of several replicas leads: where the values say that not all serve, or a flag asks for an election. */}}
{{- define "pointsman.elects" -}}
{{- $several := and (gt (int .Values.inferenceExtension.replicas) 1) (eq (toString .Values.inferenceExtension.activeActive) "false") | toString -}}
{{ include "pointsman.booleanFlag" (list . "ha-enable-leader-election") | default $several }}
{{- end }}

{{/* "true" if replicas tell each other what they do: where several serve, unless the values or the user's own flags say otherwise. */}}
{{- define "pointsman.hasPeers" -}}
{{- $wanted := .Values.inferenceExtension.peers.enabled -}}
{{- $own := or (include "pointsman.flag" (list . "peers")) (include "pointsman.flag" (list . "peer-service")) -}}
{{- $several := and (gt (int .Values.inferenceExtension.replicas) 1) (ne (include "pointsman.elects" .) "true") -}}
{{ and (not $own) (ternary $several $wanted (kindIs "invalid" $wanted)) | ternary "true" "false" }}
{{- end }}

{{/* The headless Service by which replicas find each other, and the Secret with their certificate unless the values name one. */}}
{{- define "pointsman.peers" -}}
{{ include "pointsman.name" . }}-peers
{{- end }}

{{- define "pointsman.peerSecret" -}}
{{ .Values.inferenceExtension.peers.certificate.secretName | default (include "pointsman.peers" .) }}
{{- end }}

{{/* Label of the leader's pod, as KEY: VALUE. The leader itself puts it there. */}}
{{- define "pointsman.leaderSelector" -}}
pointsman/leader: {{ include "pointsman.name" . }}
{{- end }}

{{/*
"true" if Services select the leader alone. While a release is running whose pods do not label themselves (one of an older chart, or one without an
election), they would select nobody until the first new pod leads; so they keep selecting every ready pod until the new pods are there, and the
next upgrade narrows them. Where no cluster is asked while rendering, inferenceExtension.routeToLeader says it.
*/}}
{{- define "pointsman.routesToLeader" -}}
{{- $wanted := .Values.inferenceExtension.routeToLeader -}}
{{- if ne (include "pointsman.elects" .) "true" -}}
false
{{- else if not (kindIs "invalid" $wanted) -}}
{{ $wanted }}
{{- else -}}
{{- $name := include "pointsman.name" . -}}
{{- $service := lookup "v1" "Service" .Release.Namespace $name | default dict -}}
{{- $deployment := lookup "apps/v1" "Deployment" .Release.Namespace $name | default dict -}}
{{- $labels := false -}}
{{- range dig "spec" "template" "spec" "containers" list $deployment -}}
{{- range .args | default list -}}
{{- if hasPrefix "--ha-leader-label=" . -}}
{{- $labels = true -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $replicas := dig "status" "replicas" 0 $deployment | int -}}
{{- $current := and $labels (eq $replicas (dig "status" "updatedReplicas" 0 $deployment | int)) (eq $replicas (dig "status" "availableReplicas" 0 $deployment | int)) -}}
{{ or (not $deployment) (hasKey (dig "spec" "selector" dict $service) "pointsman/leader") $current }}
{{- end -}}
{{- end }}

{{/* Name of the Lease that replicas share. */}}
{{- define "pointsman.lease" -}}
{{- $namespace := include "pointsman.flag" (list . "pool-namespace") | default .Release.Namespace -}}
{{- $pool := ternary (include "pointsman.name" .) .Release.Name (ne (include "pointsman.hasPool" .) "true") -}}
epp-{{ $namespace }}-{{ include "pointsman.flag" (list . "pool-name") | default $pool }}.llm-d.ai
{{- end }}

{{/* Name of the reader of the metrics port. */}}
{{- define "pointsman.reader" -}}
{{ include "pointsman.name" . }}-metrics-reader
{{- end }}

{{/* Secret with the reader's token. */}}
{{- define "pointsman.readerSecret" -}}
{{- with .Values.inferenceExtension.monitoring -}}
{{ .prometheus.auth.secretName | default .secret.name | default (include "pointsman.reader" $) }}
{{- end -}}
{{- end }}

{{/*
Account whose token that Secret has: the reader, which may do nothing else. But the chart `inferencepool` put the picker's own there, and a token
Secret cannot change hands: Kubernetes deletes one whose account has another UID than it is marked with. So a Secret of a release that is
taken over keeps its account. Delete the Secret and upgrade once more to give it the reader's.
*/}}
{{- define "pointsman.readerAccount" -}}
{{- $secret := lookup "v1" "Secret" .Release.Namespace (include "pointsman.readerSecret" .) | default dict -}}
{{- $account := dig "metadata" "annotations" "kubernetes.io/service-account.name" "" $secret -}}
{{- $own := include "pointsman.name" . -}}
{{ ternary $own (include "pointsman.reader" .) (eq $account $own) }}
{{- end }}

{{/* Over nodes first, then over zones, where that is possible. Takes the selector. */}}
{{- define "pointsman.spread" -}}
- maxSkew: 1
  topologyKey: kubernetes.io/hostname
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
      {{- . | nindent 6 }}
- maxSkew: 1
  topologyKey: topology.kubernetes.io/zone
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
      {{- . | nindent 6 }}
{{- end }}

{{/* Values that contradict each other. What is of the wrong form is refused by values.schema.json before this. */}}
{{- define "pointsman.validate" -}}
{{- if not .Values.inferencePool.modelServers.matchLabels -}}
{{- fail "inferencePool.modelServers.matchLabels is required: the labels of the model servers' pods, as in --set inferencePool.modelServers.matchLabels.app=vllm-llama3-8b-instruct" -}}
{{- end -}}
{{- if and (eq (include "pointsman.poolIsOld" .) "true") (contains "," (include "pointsman.targetPorts" .)) -}}
{{- fail "inferencePool.apiVersion inference.networking.x-k8s.io/v1alpha2 knows one target port only" -}}
{{- end -}}
{{- range $path, $parent := dict "inferenceExtension" .Values.inferenceExtension "standalone.proxy" .Values.standalone.proxy -}}
{{- range list "podSecurityContext" "securityContext" -}}
{{- if not (get $parent .) -}}
{{- fail (printf "%s.%s is missing: values of an older chart need `helm upgrade --reset-then-reuse-values` in the place of --reuse-values; to take keys out, set each of them to null" $path .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if include "pointsman.flag" (list . "ha-leader-label") -}}
{{- fail (printf "inferenceExtension.flags: ha-leader-label would move the label by which Services find the leader from %s" (include "pointsman.leaderSelector" . | replace ": " "=")) -}}
{{- end -}}
{{- if not (has .Values.inferencePool.modelServerType (list "vllm" "sglang" "triton-tensorrt-llm" "triton" "trtllm-serve" "tgi")) -}}
{{- fail (printf "router.modelServers.type is %s, and must be vllm, sglang, triton-tensorrt-llm, triton, trtllm-serve or tgi" .Values.inferencePool.modelServerType) -}}
{{- end -}}
{{- include "pointsman.validatePorts" . -}}
{{- $file := .Values.inferenceExtension.pluginsConfigFile -}}
{{- if and (ne $file "default-plugins.yaml") (not (has $file (list "payload-agnostic.yaml" "plugins-v2.yaml"))) (not .Values.inferenceExtension.pluginsConfig) (not (hasKey .Values.inferenceExtension.pluginsCustomConfig $file)) -}}
{{- fail (printf "inferenceExtension.pluginsConfigFile %s is not among inferenceExtension.pluginsCustomConfig" $file) -}}
{{- end -}}
{{- if ne (include "pointsman.hasPool" .) "true" -}}
{{- if .Values.inferenceObjectives -}}
{{- fail "inferenceObjectives belong to an InferencePool, and standalone.enabled makes none" -}}
{{- end -}}
{{- if .Values.experimentalHttpRoute.enabled -}}
{{- fail "experimentalHttpRoute routes to an InferencePool, and standalone.enabled makes none" -}}
{{- end -}}
{{- if ne .Values.provider.name "none" -}}
{{- fail "provider.name is for a gateway with an InferencePool, and standalone.enabled makes none" -}}
{{- end -}}
{{- end -}}
{{- if and .Values.inferenceExtension.pluginsConfig (hasKey .Values.inferenceExtension.pluginsCustomConfig $file) -}}
{{- fail (printf "inferenceExtension.pluginsConfig and inferenceExtension.pluginsCustomConfig both give %s: give it once" $file) -}}
{{- end -}}
{{- if and (gt (int .Values.inferenceExtension.replicas) 1) .Values.inferenceExtension.activeActive (eq (include "pointsman.elects" .) "true") -}}
{{- fail "inferenceExtension.activeActive and the flag ha-enable-leader-election exclude each other" -}}
{{- end -}}
{{- end }}
