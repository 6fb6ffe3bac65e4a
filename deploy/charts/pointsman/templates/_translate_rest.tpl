{{/* Keys of the pool, and the pods that it selects. */}}
{{- define "pointsman.translatePool" -}}
{{- $root := first . -}}
{{- $values := $root.Values -}}
{{- $found := last . -}}
{{- $pool := $values.inferencePool -}}
{{- $extension := $values.inferenceExtension -}}
{{- if not $pool.modelServers -}}{{- $_ := set $pool "modelServers" dict -}}{{- end -}}
{{- if and $pool.selector (not $pool.modelServers.matchLabels) -}}
{{- $_ := set $pool.modelServers "matchLabels" ($pool.selector.matchLabels | default $pool.selector) -}}
{{- end -}}
{{- with $extension.failureMode -}}{{- $_ := set $pool "failureMode" . -}}{{- end -}}
{{- if eq $pool.failureMode "FailClosed" -}}{{- $_ := set $pool "failureMode" "FailClose" -}}{{- end -}}
{{- with $pool.parser -}}{{- $_ := set $extension "parser" . -}}{{- end -}}
{{- if eq (get $pool "create" | toString) "false" -}}
{{- $_ := set $values.standalone "enabled" true -}}
{{- $_ := set $values.standalone.proxy "enabled" false -}}
{{- end -}}
{{- $sidecar := $extension.sidecar | default dict -}}
{{- $proxied := or (not $sidecar.image) $sidecar.proxyType (and $extension.endpointsServer (contains "envoy" (toString $sidecar.image))) -}}
{{- if and $sidecar.enabled $proxied -}}
{{- /* The chart `standalone` calls its proxy a sidecar. */ -}}
{{- $_ := set $values.standalone "enabled" true -}}
{{- $_ := set $values.standalone "inferencePool" (not $extension.endpointsServer) -}}
{{- $http := dict -}}
{{- range $extension.extraServicePorts -}}
{{- if eq (toString .name) "http" -}}{{- $http = . -}}{{- end -}}
{{- end -}}
{{- include "pointsman.setProxy" (list $values $sidecar $http) -}}
{{- $_ := set $extension "sidecar" (dict "enabled" false) -}}
{{- end -}}
{{- with $extension.endpointsServer -}}
{{- if or .standalone (eq (get . "createInferencePool" | toString) "false") -}}
{{- $_ := set $found "shape" "standalone" -}}
{{- $_ := set $values.standalone "enabled" true -}}
{{- with .endpointSelector -}}
{{- $labels := dict -}}
{{- range splitList "," . -}}
{{- $pair := splitn "=" 2 (trim .) -}}
{{- $_ := set $labels (trim $pair._0) (trim ($pair._1 | default "") | trimPrefix "=") -}}
{{- end -}}
{{- $_ := set $pool.modelServers "matchLabels" $labels -}}
{{- end -}}
{{- with .targetPorts -}}
{{- $ports := list -}}
{{- range splitList "," (toString .) -}}{{- $ports = append $ports (dict "number" (trim . | int)) -}}{{- end -}}
{{- $_ := set $pool "targetPorts" $ports -}}
{{- end -}}
{{- with .modelServerType -}}{{- $_ := set $pool "modelServerType" . -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- $_ := set $pool "modelServerType" ($pool.modelServerType | default "vllm" | lower) -}}
{{- $_ := set $pool "modelServerProtocol" ($pool.modelServerProtocol | default "" | lower) -}}
{{- end }}

{{/* Who collects metrics: the Prometheus operator, or Google's collectors where the gateway or the values say so. */}}
{{- define "pointsman.translateMonitoring" -}}
{{- $values := (first .).Values -}}
{{- $monitoring := $values.inferenceExtension.monitoring -}}
{{- $provider := $monitoring.provider | default dict -}}
{{- $gateway := $values.provider | default dict -}}
{{- with $values.inferenceExtension.serviceMonitor -}}
{{- $_ := set $monitoring "prometheus" (mergeOverwrite $monitoring.prometheus (pick . "enabled" "auth" "extraLabels")) -}}
{{- with .interval -}}{{- $_ := set $monitoring "interval" . -}}{{- end -}}
{{- end -}}
{{- with $monitoring.servicemonitor -}}
{{- if .enabled -}}{{- $_ := set $monitoring.prometheus "enabled" true -}}{{- end -}}
{{- with .interval -}}{{- $_ := set $monitoring "interval" . -}}{{- end -}}
{{- end -}}
{{- with ($values.gke | default dict).monitoringSecret -}}
{{- with .name -}}{{- $_ := set $monitoring.secret "name" . -}}{{- end -}}
{{- end -}}
{{- $name := $provider.name | default (ternary "gmp" "prometheusoperator" (eq (toString $gateway.name | lower) "gke")) | lower -}}
{{- if and $monitoring.prometheus.enabled (eq $name "gmp") -}}
{{- $_ := set $monitoring.prometheus "enabled" false -}}
{{- $_ := set $monitoring.gke "enabled" true -}}
{{- end -}}
{{- if dig "gmp" "autopilot" false $provider -}}
{{- $_ := set $values "provider" (mergeOverwrite (dict "name" "none") $gateway (dict "gke" (dict "autopilot" true))) -}}
{{- end -}}
{{- end }}

{{/* The gateway's provider, Istio's rule and the HTTPRoute. */}}
{{- define "pointsman.translateGateway" -}}
{{- $values := (first .).Values -}}
{{- $found := last . -}}
{{- $provider := $values.provider | default dict -}}
{{- $name := $provider.name | default "none" | lower -}}
{{- if not (has $name (list "none" "gke" "istio")) -}}
{{- include "pointsman.warn" (list $found (printf "provider.name %s brings no objects; gke and istio do" $provider.name)) -}}
{{- $name = "none" -}}
{{- end -}}
{{- $_ := set $values "provider" (mergeOverwrite (dict "gke" (dict "autopilot" false)) $provider (dict "name" $name)) -}}
{{- if not $values.provider.gke -}}{{- $_ := set $values.provider "gke" dict -}}{{- end -}}
{{- with ($provider.istio | default dict).destinationRule -}}
{{- $_ := set $values.istio "destinationRule" (mergeOverwrite (deepCopy $values.istio.destinationRule) .) -}}
{{- end -}}
{{- if not $values.istio.destinationRule.trafficPolicy -}}{{- $_ := set $values.istio.destinationRule "trafficPolicy" dict -}}{{- end -}}
{{- $route := $values.experimentalHttpRoute -}}
{{- with $values.httpRoute -}}{{- $route = mergeOverwrite $route . -}}{{- end -}}
{{- with ($values.inferenceGateway | default dict).name -}}{{- $_ := set $route "inferenceGatewayName" . -}}{{- end -}}
{{- if $route.create -}}{{- $_ := set $route "enabled" true -}}{{- end -}}
{{- with $route.requestTimeout -}}{{- $_ := set $route "timeout" . -}}{{- end -}}
{{- end }}

{{/*
The image. Values that name the reference's image would start the old picker with Pointsman's flags; Pointsman's own takes its place, so that such
values work as they are. An image of any other name is taken for Pointsman's. `registry` and `repository` come before `hub` and `name`, unless it is
they that name the reference's.
*/}}
{{- define "pointsman.translateImage" -}}
{{- $root := first . -}}
{{- $image := $root.Values.inferenceExtension.image -}}
{{- $given := printf "%s/%s" $image.hub $image.name -}}
{{- $later := printf "%s/%s" ($image.registry | default $image.hub) ($image.repository | default $image.name) -}}
{{- $own := "ghcr.io/pointsman/pointsman" -}}
{{- $theirs := "(^|/)llm-d-(inference-scheduler|router-endpoint-picker|router-epp)(-dev)?$|(^|/)gateway-apis?-inference-extension/" -}}
{{- if not (regexMatch $theirs $later) -}}
{{- $_ := set $image "hub" ($image.registry | default $image.hub) -}}
{{- $_ := set $image "name" ($image.repository | default $image.name) -}}
{{- else if or (eq $given $own) (regexMatch $theirs $given) -}}
{{- include "pointsman.warn" (list (last .) (printf "the image %s is not Pointsman's: %s:%s takes its place. Set the image to where you keep Pointsman's, or take it out of the values" $later $own $root.Chart.AppVersion)) -}}
{{- $_ := set $root.Values.inferenceExtension "image" (dict "hub" (dir $own) "name" (base $own) "tag" "" "pullPolicy" $image.pullPolicy) -}}
{{- $_ := set (last .) "foreign" true -}}
{{- end -}}
{{- end }}

{{/* Values of the other charts that are one of several files name no pods; the label of the reference's walkthrough stands in. */}}
{{- define "pointsman.translateLabels" -}}
{{- $root := first . -}}
{{- $servers := $root.Values.inferencePool.modelServers -}}
{{- if and (not $servers.matchLabels) (or (last .).foreign $root.Values.inferenceExtension.pluginsCustomConfig) -}}
{{- include "pointsman.warn" (list (last .) (printf "no labels of model servers are given: pods with app=%s are selected" $root.Release.Name)) -}}
{{- $_ := set $servers "matchLabels" (dict "app" $root.Release.Name) -}}
{{- end -}}
{{- end }}
