{{/* The values `router:`, `httpRoute` and `provider` of the charts llm-d-router-gateway and llm-d-router-standalone. */}}
{{- define "pointsman.translateRouter" -}}
{{- $values := (first .).Values -}}
{{- $found := last . -}}
{{- $router := $values.router -}}
{{- $epp := $router.epp | default dict -}}
{{- $extension := $values.inferenceExtension -}}
{{- $_ := set $found "shape" "router" -}}
{{- $_ := set $found "foreign" true -}}
{{- range $key := list "replicas" "extProcPort" "grpcHealthPort" "extraContainerPorts" "env" "flags" "parser" "parsers" "metricsDataSource"
      "pluginsConfigFile" "pluginsConfig" "pluginsCustomConfig" "resources" "affinity" "tolerations" "nodeSelector" "topologySpreadConstraints"
      "priorityClassName" "podAnnotations" "podLabels" "volumes" "volumeMounts" "terminationGracePeriodSeconds" "deploymentStrategy" -}}
{{- if not (kindIs "invalid" (get $epp $key)) -}}
{{- if hasKey $epp $key -}}{{- $_ := set $extension $key (get $epp $key) -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- range $key := list "podSecurityContext" "securityContext" -}}
{{- with get $epp $key -}}
{{- $_ := set $extension $key (mergeOverwrite (deepCopy (get $extension $key)) .) -}}
{{- end -}}
{{- end -}}
{{- $image := $epp.image | default dict -}}
{{- if or $image.registry $image.repository -}}
{{- $_ := set $extension "image" (merge (deepCopy $image) $extension.image) -}}
{{- else if $image -}}
{{- $_ := set $extension "image" (merge (omit $image "tag") $extension.image) -}}
{{- with $image.tag -}}
{{- include "pointsman.warn" (list $found (printf "router.epp.image.tag %v is one of the reference's image, which is named nowhere: Pointsman's own image is used" .)) -}}
{{- end -}}
{{- end -}}
{{- range $key := list "imagePullSecrets" "extraServicePorts" -}}
{{- with get $router $key -}}{{- $_ := set $extension $key . -}}{{- end -}}
{{- end -}}
{{- range $key := list "monitoring" "tracing" -}}
{{- with get $router $key -}}{{- $_ := set $extension $key (mergeOverwrite (deepCopy (get $extension $key)) .) -}}{{- end -}}
{{- end -}}
{{- with $router.latencyPredictor -}}{{- $_ := set $extension "latencyPredictor" . -}}{{- end -}}
{{- $servers := $router.modelServers | default dict -}}
{{- with $servers.matchLabels -}}{{- $_ := set $values.inferencePool.modelServers "matchLabels" . -}}{{- end -}}
{{- range $theirs, $ours := dict "type" "modelServerType" "protocol" "modelServerProtocol" "targetPorts" "targetPorts" "targetPortNumber" "targetPortNumber" -}}
{{- with get $servers $theirs -}}{{- $_ := set $values.inferencePool $ours . -}}{{- end -}}
{{- end -}}
{{- $pool := $router.inferencePool | default dict -}}
{{- with $pool.failureMode -}}{{- $_ := set $values.inferencePool "failureMode" . -}}{{- end -}}
{{- with $router.inferenceObjectives -}}{{- $_ := set $values "inferenceObjectives" . -}}{{- end -}}
{{- include "pointsman.translateProxy" . -}}
{{- $creates := ne (get $pool "create" | toString) "false" -}}
{{- $standalone := $values.standalone -}}
{{- if or (not $creates) $standalone.proxy.enabled -}}
{{- $_ := set $standalone "enabled" true -}}
{{- $_ := set $standalone "inferencePool" $creates -}}
{{- end -}}
{{- end }}

{{/*
Whether an Envoy is part of it. The two charts share their values, and only llm-d-router-standalone has one, so it is read from the rest: a
`proxy`, or a Service port `http`, and no gateway's provider and no HTTPRoute. router.proxy.enabled says it outright.
*/}}
{{- define "pointsman.translateProxy" -}}
{{- $values := (first .).Values -}}
{{- $found := last . -}}
{{- $router := $values.router -}}
{{- $given := $router.proxy | default dict -}}
{{- $proxy := $values.standalone.proxy -}}
{{- $http := dict -}}
{{- range $router.extraServicePorts -}}
{{- if eq (toString .name) "http" -}}{{- $http = . -}}{{- end -}}
{{- end -}}
{{- $provider := dig "name" "none" ($values.provider | default dict) | default "none" | lower -}}
{{- $gateway := or (ne $provider "none") (dig "create" false ($values.httpRoute | default dict)) -}}
{{- $wanted := not (or (empty (merge (dict) $given $http)) $gateway) -}}
{{- if kindIs "bool" $given.enabled -}}
{{- $wanted = $given.enabled -}}
{{- else if $wanted -}}
{{- include "pointsman.warn" (list $found "the values do not say which of the two charts they are for: an Envoy stands in front, as in llm-d-router-standalone. router.proxy.enabled=false leaves it out, as llm-d-router-gateway does") -}}
{{- end -}}
{{- include "pointsman.setProxy" (list $values $given (ternary $http dict $wanted)) -}}
{{- with $given.configMapData -}}{{- $_ := set $proxy "configMap" (dict "data" .) -}}{{- end -}}
{{- with $given.terminationGracePeriodSeconds -}}{{- $_ := set $proxy "drainSeconds" (max 1 (sub (int .) 10)) -}}{{- end -}}
{{- $_ := set $proxy "enabled" $wanted -}}
{{- if and $wanted (not $http) -}}
{{- $http = dict "name" "http" "port" 8081 "protocol" "TCP" "targetPort" 8081 -}}
{{- $_ := set $values.inferenceExtension "extraServicePorts" (append ($router.extraServicePorts | default list) $http) -}}
{{- $_ := set $proxy "servicePort" $http -}}
{{- end -}}
{{- end }}

{{/*
What the values of another chart say of the proxy's container, and the port of the picker's Service that leads to it; without one the proxy keeps its
own. Takes a list of the values, the container and the port.
*/}}
{{- define "pointsman.setProxy" -}}
{{- $proxy := (index . 0).standalone.proxy -}}
{{- $given := index . 1 -}}
{{- range $key := list "mode" "replicas" "name" "image" "imagePullPolicy" "command" "args" "env" "ports" "livenessProbe" "readinessProbe" "startupProbe"
      "volumes" "volumeMounts" "configMap" "resources" "securityContext" -}}
{{- with get $given $key -}}{{- $_ := set $proxy $key . -}}{{- end -}}
{{- end -}}
{{- $_ := set $proxy "type" ($given.proxyType | default "envoy" | lower) -}}
{{- with index . 2 -}}
{{- $target := include "pointsman.scalar" (.targetPort | default .port) -}}
{{- $_ := set $proxy "port" (ternary $target .port (regexMatch "^[0-9]+$" $target) | int) -}}
{{- $_ := set $proxy "servicePort" . -}}
{{- end -}}
{{- end }}
