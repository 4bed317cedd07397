package main

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"berth/internal/awsapi"
	"berth/internal/compute"
	"berth/internal/desk"
	"berth/internal/s3"
)

// newDoors puts all doors of the service behind one address: what is signed for S3 goes to the S3 door, other POSTs to / to
// the AWS door, and what a browser asks for to the pages.
func newDoors(d *desk.Desk, store *s3.Store, driver compute.Driver, figures *metrics, log *slog.Logger, endpoint string) (http.Handler, error) {
	auth := &awsapi.Authenticator{Keys: d, Region: d.Region(), Now: time.Now}
	api, err := awsapi.New(awsapi.Config{
		Auth: auth, NewID: newID, Log: log.With("part", "aws"), Observe: figures.request,
		Services: []awsapi.Service{
			{Name: "workspaces", Protocol: awsapi.JSON11, TargetPrefix: "WorkspacesService", Operations: d, Model: awsapi.WorkSpacesModel()},
			{Name: "ec2", Protocol: awsapi.EC2, Version: "2016-11-15", Operations: d.EC2(), Model: awsapi.EC2Model()},
			{Name: "sts", Protocol: awsapi.Query, Version: "2011-06-15", Operations: d.STS(), Open: []string{"GetCallerIdentity"}},
			{Name: "berth", Protocol: awsapi.JSON11, TargetPrefix: "BerthService", Operations: d.Berth()},
		},
	})
	if err != nil {
		return nil, err
	}
	objects := &s3.Door{Store: store, Auth: auth, Region: d.Region(), AccountID: d.AccountID(), NewID: newID, Log: log.With("part", "s3")}
	resumable, err := s3.NewResumable(store, d, "/uploads/", log.With("part", "s3"))
	if err != nil {
		return nil, err
	}
	pages := http.NewServeMux()
	pages.Handle("/uploads/", resumable)
	pages.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) { answer(w, http.StatusOK, "alive") })
	pages.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if err := d.Ready(r.Context()); err != nil {
			log.Error("not ready", "err", err)
			answer(w, http.StatusServiceUnavailable, "not ready")
			return
		}
		answer(w, http.StatusOK, "ready")
	})
	pages.Handle("GET /metrics", promhttp.HandlerFor(figures.registry, promhttp.HandlerOpts{}))
	pages.HandleFunc("GET /"+checkerZIP, serveChecker(besideThisProgram(), log))
	browser(pages, d, log)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case awsapi.SignedFor(r) == "s3":
			objects.ServeHTTP(w, r)
		case r.Method == http.MethodPost && r.URL.Path == "/" || r.Header.Get("X-Amz-Target") != "":
			api.ServeHTTP(w, r)
		default:
			if _, pattern := pages.Handler(r); pattern == "" {
				objects.ServeHTTP(w, r) // somebody without a signature asks for a bucket: S3 tells how it refuses
				return
			}
			pages.ServeHTTP(w, r)
		}
	}), nil
}

func answer(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string]string{"status": text}) // the client may be gone: nobody to tell
}

// metrics are the service's figures for Prometheus.
type metrics struct {
	registry *prometheus.Registry
	requests *prometheus.HistogramVec
	steps    *prometheus.HistogramVec
}

func newMetrics() *metrics {
	r := prometheus.NewRegistry()
	f := promauto.With(r)
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return &metrics{
		registry: r,
		requests: f.NewHistogramVec(prometheus.HistogramOpts{Name: "berth_request_seconds", Help: "Time of requests by service, operation and error code (empty: success).", Buckets: prometheus.DefBuckets}, []string{"service", "operation", "code"}),
		steps:    f.NewHistogramVec(prometheus.HistogramOpts{Name: "berth_flow_step_seconds", Help: "Time of the steps of long work, by how they ended: ok or error.", Buckets: prometheus.ExponentialBuckets(0.01, 4, 10)}, []string{"flow", "step", "result"}),
	}
}

func (m *metrics) request(service, operation, code string, took time.Duration) {
	m.requests.WithLabelValues(service, operation, code).Observe(took.Seconds())
}

func (m *metrics) step(flow, step string, took time.Duration, err error) {
	result := "ok"
	if err != nil {
		result = "error"
	}
	m.steps.WithLabelValues(flow, step, result).Observe(took.Seconds())
}
