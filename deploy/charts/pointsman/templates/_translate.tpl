{{/*
Values of other charts, and of older versions of them, in the form of this one. Every template begins with it; whichever Helm runs first does the
work for all, because they share the values. `.Values.translated` then has what was found: `warnings`, and what decides which objects there are.
*/}}
{{- define "pointsman.translate" -}}
{{- if not (hasKey .Values "translated") -}}
{{- $found := dict "warnings" list "shape" "inferencepool" "foreign" false -}}
{{- $known := .Files.Get "files/known-values.yaml" | fromYaml -}}
{{- include "pointsman.unknownKeys" (list $found .Values $known "") -}}
{{- include "pointsman.prune" .Values -}}
{{- include "pointsman.fillIn" (list .Values (.Files.Get "files/absent-values.yaml" | fromYaml)) -}}
{{- if .Values.router -}}
{{- include "pointsman.translateRouter" (list . $found) -}}
{{- end -}}
{{- include "pointsman.translateExtension" (list . $found) -}}
{{- include "pointsman.translatePool" (list . $found) -}}
{{- include "pointsman.translateMonitoring" (list . $found) -}}
{{- include "pointsman.translateGateway" (list . $found) -}}
{{- include "pointsman.translateImage" (list . $found) -}}
{{- include "pointsman.translateLabels" (list . $found) -}}
{{- $_ := set .Values "translated" $found -}}
{{- end -}}
{{- end }}

{{/* Takes out keys with nothing below them. A flag without a value stands alone, and a key of a security context is taken out by it: those stay. */}}
{{- define "pointsman.prune" -}}
{{- $values := . -}}
{{- range $key := keys $values -}}
{{- $value := get $values $key -}}
{{- if kindIs "invalid" $value -}}
{{- $_ := unset $values $key -}}
{{- else if and (kindIs "map" $value) (not (has $key (list "flags" "env" "podSecurityContext" "securityContext" "pluginsConfig" "pluginsCustomConfig"))) -}}
{{- include "pointsman.prune" $value -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* Sets what is missing of the second map in the first. A false or an empty text is not missing. */}}
{{- define "pointsman.fillIn" -}}
{{- $values := first . -}}
{{- range $key, $absent := last . -}}
{{- if not (hasKey $values $key) -}}
{{- $_ := set $values $key (ternary (deepCopy $absent) $absent (kindIs "map" $absent)) -}}
{{- else if and (kindIs "map" $absent) (kindIs "map" (get $values $key)) -}}
{{- include "pointsman.fillIn" (list (get $values $key) $absent) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* Adds a warning. Takes a list of what was found and the text. */}}
{{- define "pointsman.warn" -}}
{{- $found := first . -}}
{{- $_ := set $found "warnings" (append $found.warnings (last .)) -}}
{{- end }}

{{/*
Warns about keys that nobody knows and about those that have no effect. Takes a list of what was found, the values, what is known of them, and where
they stand. A key that differs only in case or in a final `s` or `d` from one that is known is named with it.
*/}}
{{- define "pointsman.unknownKeys" -}}
{{- $found := index . 0 -}}
{{- $known := index . 2 -}}
{{- $above := index . 3 -}}
{{- range $key, $value := index . 1 -}}
{{- $path := ternary $key (printf "%s.%s" $above $key) (empty $above) -}}
{{- $meaning := get $known $key -}}
{{- if not (hasKey $known $key) -}}
{{- $near := "" -}}
{{- range $other, $_ := $known -}}
{{- if eq ($other | lower | trimSuffix "s" | trimSuffix "d") ($key | lower | replace "-" "" | replace "_" "" | trimSuffix "s" | trimSuffix "d") -}}
{{- $near = printf ", did you mean %s?" $other -}}
{{- end -}}
{{- end -}}
{{- include "pointsman.warn" (list $found (printf "%s is unknown and has no effect%s" $path $near)) -}}
{{- else if kindIs "string" $meaning -}}
{{- /* What is switched off anyway needs no word. */ -}}
{{- $off := false -}}
{{- if kindIs "map" $value -}}{{- $off = eq (get $value "enabled" | toString) "false" -}}{{- end -}}
{{- if not (or (empty $value) $off) -}}
{{- include "pointsman.warn" (list $found (printf "%s has no effect: %s" $path $meaning)) -}}
{{- end -}}
{{- else if and (kindIs "map" $meaning) (kindIs "map" $value) -}}
{{- include "pointsman.unknownKeys" (list $found $value $meaning $path) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* Keys of the picker itself: older spellings, and two forms of one thing. */}}
{{- define "pointsman.translateExtension" -}}
{{- $extension := (first .).Values.inferenceExtension -}}
{{- $found := last . -}}
{{- range $key := list "pluginsCustomConfig" "pluginsConfig" "metricsDataSource" -}}
{{- if not (get $extension $key) -}}{{- $_ := set $extension $key dict -}}{{- end -}}
{{- end -}}
{{- if kindIs "map" $extension.env -}}
{{- $env := list -}}
{{- range $name, $value := $extension.env -}}
{{- $env = append $env (dict "name" $name "value" (ternary "" (include "pointsman.scalar" $value) (kindIs "invalid" $value))) -}}
{{- end -}}
{{- $_ := set $extension "env" $env -}}
{{- end -}}
{{- with $extension.grpcPort -}}{{- $_ := set $extension "extProcPort" . -}}{{- end -}}
{{- $root := first . -}}
{{- range $old, $flag := dict "logVerbosity" "v" "logLevel" "v" "enableLeaderElection" "ha-enable-leader-election" -}}
{{- if and (hasKey $extension $old) (not (kindIs "invalid" (get $extension $old))) (not (include "pointsman.flag" (list $root $flag))) -}}
{{- include "pointsman.addFlag" (list $extension $flag (get $extension $old)) -}}
{{- end -}}
{{- end -}}
{{- include "pointsman.fitMemory" (list $extension $found) -}}
{{- include "pointsman.translateServicePorts" (list $extension $found) -}}
{{- end }}

{{/* Ports of the Service that it has anyway are left out, and one that is written as a port of a container is one of the Service. */}}
{{- define "pointsman.translateServicePorts" -}}
{{- $extension := first . -}}
{{- $found := last . -}}
{{- $own := dict (toString $extension.extProcPort) (list "grpc" (toString $extension.extProcPort)) "9090" (list "metrics" "9090") -}}
{{- $ports := list -}}
{{- range $index, $port := $extension.extraServicePorts -}}
{{- $port = merge (omit $port "containerPort") (dict "port" (get $port "port" | default $port.containerPort)) -}}
{{- $number := include "pointsman.scalar" $port.port -}}
{{- $target := include "pointsman.scalar" ($port.targetPort | default $port.port) -}}
{{- if and (hasKey $own $number) (has $target (get $own $number)) -}}
{{- include "pointsman.warn" (list $found (printf "extraServicePorts[%d] has no effect: the Service has port %s anyway, under a name of its own" $index $number)) -}}
{{- else -}}
{{- $ports = append $ports $port -}}
{{- end -}}
{{- end -}}
{{- $_ := set $extension "extraServicePorts" $ports -}}
{{- end }}

{{/* Adds a flag to those of the user, whatever form they have. Takes a list of the extension's values, the name and the value. */}}
{{- define "pointsman.addFlag" -}}
{{- $extension := first . -}}
{{- if kindIs "slice" $extension.flags -}}
{{- $_ := set $extension "flags" (append $extension.flags (dict "name" (index . 1) "value" (last .))) -}}
{{- else -}}
{{- $_ := set $extension "flags" (merge (dict (index . 1) (last .)) ($extension.flags | default dict)) -}}
{{- end -}}
{{- end }}

{{/* A request that is above this chart's own limit takes the limit away: the values of the other charts know another one. */}}
{{- define "pointsman.fitMemory" -}}
{{- $extension := first . -}}
{{- $limit := dig "limits" "memory" "" ($extension.resources | default dict) | toString -}}
{{- $request := dig "requests" "memory" "" ($extension.resources | default dict) | toString -}}
{{- if and $limit $request -}}
{{- if gt (include "pointsman.bytes" $request | float64) (include "pointsman.bytes" $limit | float64) -}}
{{- include "pointsman.warn" (list (last .) (printf "inferenceExtension.resources: the request of %s of memory is above the limit of %s, which is left out" $request $limit)) -}}
{{- $_ := unset $extension.resources.limits "memory" -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* A quantity such as 512Mi as a number. */}}
{{- define "pointsman.bytes" -}}
{{- $units := dict "" 1.0 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "Ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 "Ti" 1099511627776.0 -}}
{{- mulf (regexFind "^[0-9.]+" . | float64) (get $units (regexReplaceAll "^[0-9.]+" . "") | default 1.0) -}}
{{- end }}
