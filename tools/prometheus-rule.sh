#!/usr/bin/env bash
# Writes deploy/prometheus/rules.yaml where other formats need it: as a PrometheusRule, and into the Helm chart.
set -euo pipefail
cd "$(dirname "$0")/../deploy"

{
    cat <<'HEAD'
# Written by tools/prometheus-rule.sh from deploy/prometheus/rules.yaml: change that file, then run `make rules`.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: bearerd
spec:
HEAD
    grep -v '^#' prometheus/rules.yaml | sed 's/^\(.\)/  \1/'
} >kustomize/monitoring/prometheus-rule.yaml
cp prometheus/rules.yaml helm/bearerd/rules.yaml
