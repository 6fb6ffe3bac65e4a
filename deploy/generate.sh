#!/usr/bin/env bash
# Makes what is derived: copies for the chart, which cannot reach out of its folder, and the manifests of kustomize/ from the chart, as
# `helm install vllm-llama3-8b-instruct` would. Run it after a change of the chart, of the alerts, the dashboard or Envoy's file.
# HELM names another helm than the one of `make setup`.
set -euo pipefail
cd "$(dirname "$0")"
helm=${HELM:-../target/kubernetes/helm}

cp envoy/envoy.yaml monitoring/alerts.yaml monitoring/dashboard.json charts/pointsman/files/

# render VALUES TEMPLATES...: what Helm alone needs is taken out.
render() {
    local values=$1
    shift
    "$helm" template vllm-llama3-8b-instruct charts/pointsman --kube-version 1.33.0 --namespace default \
        --values "charts/pointsman/ci/$values.yaml" "${@/#/--show-only=templates/}" \
        | sed -e '/^# Source: /d' -e '/app.kubernetes.io\/managed-by: /d' \
            -e '/^      annotations:$/d' -e '/# The configuration is read at the start only/d' -e '/ checksum\/[a-z]*: /d'
}

# write FILE: standard input with a line that says where it is from.
write() {
    { echo "# Made by deploy/generate.sh from the chart."; cat; } > "$1"
}

overlays=kustomize/overlays
render default deployment.yaml configmap.yaml service.yaml rbac.yaml metrics-auth.yaml inferencepool.yaml | write kustomize/base/pointsman.yaml
render ha rbac.yaml leader-policy.yaml poddisruptionbudget.yaml service.yaml \
    | awk 'BEGIN { RS = "---\n" } /-leader-election/ || /PodDisruptionBudget/ || /ValidatingAdmissionPolicy/ || /component: metrics/ { printf "---\n%s", $0 }' | write "$overlays/ha/more.yaml"
render standalone-sidecar proxy.yaml | write "$overlays/standalone-sidecar/proxy.yaml"
render standalone-service proxy.yaml poddisruptionbudget.yaml | write "$overlays/standalone-service/proxy.yaml"
