#!/usr/bin/env bash
# Makes what the API server and the webhook need to trust each other: ./certificate.sh [DAYS]
# tls.crt and tls.key for the webhook's Service, and authority.yaml, which puts the authority into the webhook's configuration.
# The authority's own key is not kept: to renew, run it again and apply again.
set -euo pipefail
cd "$(dirname "$0")"
days=${1:-365}
name=bearerd-webhook.bearerd.svc
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
umask 077

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days "$days" -subj "/CN=bearerd-webhook authority" \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign -keyout "$work/ca.key" -out "$work/ca.crt" 2>/dev/null
openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$name" -keyout tls.key -out "$work/tls.csr" 2>/dev/null
printf 'subjectAltName=DNS:%s\nextendedKeyUsage=serverAuth\nbasicConstraints=CA:FALSE\n' "$name" >"$work/extensions"
openssl x509 -req -in "$work/tls.csr" -CA "$work/ca.crt" -CAkey "$work/ca.key" -CAcreateserial -days "$days" -extfile "$work/extensions" \
    -out tls.crt 2>/dev/null
cat >authority.yaml <<PATCH
# Written by certificate.sh.
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingWebhookConfiguration
metadata:
  name: bearerd
webhooks:
  - name: inject.bearerd.dev
    clientConfig:
      caBundle: $(base64 -w 0 "$work/ca.crt")
PATCH
echo "tls.crt, tls.key and authority.yaml are good for $days days"
