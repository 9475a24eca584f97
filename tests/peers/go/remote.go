package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/ipfs/boxo/gateway"
	"github.com/prometheus/client_golang/prometheus"
)

// remoteJob asks a gateway of boxo that has no blocks of its own and reads each from ours, as a trustless upstream.
type remoteJob struct {
	Upstream string            `json:"upstream"`
	Backend  string            `json:"backend"` // "car" or "blocks"
	Method   string            `json:"method"`
	Path     string            `json:"path"`
	Headers  map[string]string `json:"headers"`
}

type remoteAnswer struct {
	Status  int         `json:"status"`
	Headers http.Header `json:"headers"`
	Size    int         `json:"size"`
	SHA256  string      `json:"sha256"`
}

func askThroughRemote(ctx context.Context, job remoteJob) (any, error) {
	upstreams := []string{job.Upstream}
	counters := prometheus.NewRegistry() // each handler has its own: two on one would collide
	option := gateway.WithPrometheusRegistry(counters)
	var backend gateway.IPFSBackend
	var err error
	switch job.Backend {
	case "car":
		backend, err = gateway.NewRemoteCarBackend(upstreams, nil, option)
	case "blocks":
		backend, err = gateway.NewRemoteBlocksBackend(upstreams, nil, option)
	default:
		return nil, fmt.Errorf("unknown backend %q", job.Backend)
	}
	if err != nil {
		return nil, err
	}
	handler := gateway.NewHandler(gateway.Config{DeserializedResponses: true, NoDNSLink: true, MetricsRegistry: counters}, backend)
	request := httptest.NewRequestWithContext(ctx, job.Method, job.Path, nil)
	for name, value := range job.Headers {
		request.Header.Set(name, value)
	}
	answer := httptest.NewRecorder()
	handler.ServeHTTP(answer, request)
	body := answer.Body.Bytes()
	digest := sha256.Sum256(body)
	return remoteAnswer{answer.Code, answer.Header(), len(body), hex.EncodeToString(digest[:])}, nil
}
