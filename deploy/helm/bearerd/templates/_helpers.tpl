{{- define "bearerd.labels" -}}
app.kubernetes.io/name: bearerd
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "bearerd.alone" -}}
{{- if has .Values.mode (list "decision" "webhook") }}true{{ end }}
{{- end }}

{{- define "bearerd.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* bearerd's container: an init container that goes on beside an app, or the only one. */}}
{{- define "bearerd.container" -}}
- name: bearerd
  image: {{ include "bearerd.image" . | quote }}
  {{- if not (include "bearerd.alone" .) }}
  # A native sidecar: up before the app, down after it.
  restartPolicy: Always
  {{- end }}
  args: [run, -c, /etc/bearerd/bearerd.yaml]
  {{- with .Values.env }}
  env: {{- toYaml . | nindent 4 }}
  {{- end }}
  ports:
    {{- if ne .Values.mode "outbound" }}
    - { name: callers, containerPort: {{ .Values.port }} }
    {{- end }}
    - { name: metrics, containerPort: 9902 }
  startupProbe:
    {{- if eq .Values.mode "outbound" }}
    # Ready means that the first token is there (keep_warm): the app starts with one at hand.
    httpGet: { path: /readyz, port: metrics }
    failureThreshold: 120
    {{- else }}
    httpGet: { path: /startupz, port: metrics }
    failureThreshold: 30
    {{- end }}
    periodSeconds: 1
  livenessProbe:
    httpGet: { path: /livez, port: metrics }
    periodSeconds: 10
    timeoutSeconds: 2
  readinessProbe:
    httpGet: { path: /readyz, port: metrics }
    periodSeconds: 2
    failureThreshold: 1
  resources: {{- toYaml .Values.resources | nindent 4 }}
  securityContext:
    runAsUser: 65532
    runAsGroup: 65532
    allowPrivilegeEscalation: false
    readOnlyRootFilesystem: true
    capabilities: { drop: [ALL] }
  volumeMounts:
    - { name: bearerd, mountPath: /etc/bearerd, readOnly: true }
    - { name: bearerd-secrets, mountPath: /secrets, readOnly: true }
    - { name: bearerd-ledger, mountPath: /var/lib/bearerd }
{{- end }}

{{/* The webhook's: no configuration, no ledger. */}}
{{- define "bearerd.webhook" -}}
- name: bearerd
  image: {{ include "bearerd.image" . | quote }}
  args:
    - webhook
    - --address=0.0.0.0:{{ .Values.port }}
    - --certificate=/tls/tls.crt
    - --private-key=/tls/tls.key
    # What counts where a pod's annotations say nothing.
    - {{ printf "--image=%s" (include "bearerd.image" .) | quote }}
    {{- with .Values.webhook.tokenService }}
    - {{ printf "--token-service=%s" . | quote }}
    {{- end }}
  ports:
    - { name: https, containerPort: {{ .Values.port }} }
    - { name: metrics, containerPort: 9902 }
  startupProbe:
    httpGet: { path: /healthz, port: https, scheme: HTTPS }
    failureThreshold: 30
    periodSeconds: 1
  livenessProbe:
    httpGet: { path: /healthz, port: https, scheme: HTTPS }
    periodSeconds: 10
    timeoutSeconds: 2
  readinessProbe:
    httpGet: { path: /healthz, port: https, scheme: HTTPS }
    periodSeconds: 2
    failureThreshold: 1
  # While endpoints leave.
  lifecycle:
    preStop:
      sleep: { seconds: 5 }
  resources: {{- toYaml .Values.resources | nindent 4 }}
  securityContext:
    runAsUser: 65532
    runAsGroup: 65532
    allowPrivilegeEscalation: false
    readOnlyRootFilesystem: true
    capabilities: { drop: [ALL] }
  volumeMounts:
    - { name: tls, mountPath: /tls, readOnly: true }
{{- end }}
