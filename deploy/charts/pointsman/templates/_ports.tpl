{{/* Ports by whose value they are: no two listeners of a pod and no two ports of a Service may be the same, and no two names. */}}
{{- define "pointsman.validatePorts" -}}
{{- $extension := .Values.inferenceExtension -}}
{{- $ports := dict "grpc-port" (toString $extension.extProcPort) "grpc-health-port" (toString $extension.grpcHealthPort) "metrics-port" "9090" -}}
{{- $peers := eq (include "pointsman.hasPeers" .) "true" -}}
{{- if $peers -}}
{{- $_ := set $ports "peer-port" (toString $extension.peers.port) -}}
{{- end -}}
{{- with $extension.kedaScalerPort -}}
{{- $_ := set $ports "keda-scaler-port" (toString .) -}}
{{- end -}}
{{- range (include "pointsman.flags" . | fromJson).all -}}
{{- $port := get $ports .name -}}
{{- if and $port (ne (toString .value) $port) -}}
{{- fail (printf "inferenceExtension.flags: %s would move a port that probes, Service and monitors expect at %s, to %s (inferenceExtension.extProcPort, inferenceExtension.peers.port and inferenceExtension.kedaScalerPort move the ports that can be moved)" .name $port .value) -}}
{{- end -}}
{{- end -}}

{{- $listeners := list
      (dict "of" "inferenceExtension.extProcPort" "port" $extension.extProcPort "name" "grpc")
      (dict "of" (printf "the health port (%v)" $extension.grpcHealthPort) "port" $extension.grpcHealthPort "name" "grpc-health")
      (dict "of" "the metrics port (9090)" "port" 9090 "name" "metrics") -}}
{{- $service := list
      (dict "of" "inferenceExtension.extProcPort" "port" $extension.extProcPort "name" "grpc-ext-proc")
      (dict "of" "the metrics port (9090)" "port" 9090 "name" "http-metrics") -}}
{{- with $extension.kedaScalerPort -}}
{{- $listeners = append $listeners (dict "of" "inferenceExtension.kedaScalerPort" "port" . "name" "grpc-keda") -}}
{{- $service = append $service (dict "of" "inferenceExtension.kedaScalerPort" "port" . "name" "grpc-keda") -}}
{{- end -}}
{{- if $peers -}}
{{- $listeners = append $listeners (dict "of" "inferenceExtension.peers.port" "port" $extension.peers.port "name" "peers") -}}
{{- end -}}
{{- if eq (include "pointsman.hasProxy" .) "true" -}}
{{- $envoy := list
      (dict "of" (printf "standalone.proxy.port (%d in the container)" (include "pointsman.proxyContainerPort" . | int)) "port" (include "pointsman.proxyContainerPort" . | int) "name" "http")
      (dict "of" "the port of Envoy's readiness and metrics (19001)" "port" 19001 "name" "envoy-admin")
      (dict "of" "the port of Envoy's admin pages (19000)" "port" 19000) -}}
{{- if eq .Values.standalone.proxy.mode "sidecar" -}}
{{- $listeners = concat $listeners $envoy -}}
{{- else -}}
{{- include "pointsman.distinctPorts" $envoy -}}
{{- end -}}
{{- end -}}
{{- $own := include "pointsman.flag" (list . "keda-scaler-port") -}}
{{- if and $own (not $extension.kedaScalerPort) -}}
{{- include "pointsman.distinctPorts" (append $listeners (dict "of" "inferenceExtension.flags keda-scaler-port" "port" $own)) -}}
{{- end -}}
{{- range $index, $port := $extension.extraContainerPorts -}}
{{- $of := printf "inferenceExtension.extraContainerPorts[%d]" $index -}}
{{- $listeners = append $listeners (dict "of" $of "port" $port.containerPort "name" $port.name "protocol" $port.protocol) -}}
{{- end -}}
{{- range $index, $port := $extension.extraServicePorts -}}
{{- $of := printf "inferenceExtension.extraServicePorts[%d]" $index -}}
{{- $service = append $service (dict "of" $of "port" $port.port "name" $port.name "protocol" $port.protocol) -}}
{{- end -}}
{{- include "pointsman.distinctPorts" $listeners -}}
{{- include "pointsman.distinctPorts" $service -}}
{{- end }}

{{/* Fails if two ports of this list share a number or a name. */}}
{{- define "pointsman.distinctPorts" -}}
{{- $numbers := dict -}}
{{- $names := dict -}}
{{- range . -}}
{{- $key := printf "%s %d" (.protocol | default "TCP") (int .port) -}}
{{- if hasKey $numbers $key -}}
{{- fail (printf "%s and %s are both %d: give each a port of its own" (get $numbers $key) .of (int .port)) -}}
{{- end -}}
{{- $_ := set $numbers $key .of -}}
{{- if .name -}}
{{- if hasKey $names .name -}}
{{- fail (printf "%s and %s are both called %s: give each a name of its own" (get $names .name) .of .name) -}}
{{- end -}}
{{- $_ := set $names .name .of -}}
{{- end -}}
{{- end -}}
{{- end }}
