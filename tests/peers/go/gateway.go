package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/ipfs/boxo/gateway"
	"github.com/ipfs/boxo/ipns"
	"github.com/ipfs/boxo/namesys"
	"github.com/ipfs/boxo/path"
	"github.com/libp2p/go-libp2p/core/routing"
	"github.com/prometheus/client_golang/prometheus"
)

// What `boxo-peer gateway` reads on standard input. It prints its URL and serves until its input ends.
type gatewayConfig struct {
	Car     string                 `json:"car"`
	Hosts   []string               `json:"hosts"`   // their subdomains are origins
	Strict  []string               `json:"strict"`  // give only what can be verified
	Names   map[string]fixedTarget `json:"names"`   // DNSLinks and keys in base36
	Records map[string][]byte      `json:"records"` // by key in base36
}

type fixedTarget struct {
	Path string `json:"path"`
	TTLs int    `json:"ttl_s"`
}

func serveGateway(ctx context.Context, config gatewayConfig, input io.Reader) error {
	store := newStore()
	if _, err := readCar(ctx, config.Car, store.blocks); err != nil {
		return err
	}
	backend, err := gateway.NewBlocksBackend(
		store.service,
		gateway.WithNameSystem(fixedNames{targets: config.Names}),
		gateway.WithValueStore(fixedRecords{records: config.Records}),
	)
	if err != nil {
		return err
	}
	known := map[string]*gateway.PublicGateway{}
	for _, host := range config.Hosts {
		known[host] = &gateway.PublicGateway{
			Paths: []string{"/ipfs", "/ipns"}, UseSubdomains: true, InlineDNSLink: true, DeserializedResponses: true,
		}
	}
	for _, host := range config.Strict {
		known[host] = &gateway.PublicGateway{Paths: []string{"/ipfs", "/ipns"}}
	}
	settings := gateway.Config{
		DeserializedResponses: true, PublicGateways: known, MetricsRegistry: prometheus.NewRegistry(),
	}
	handler := gateway.NewHostnameHandler(settings, backend, gateway.NewHandler(settings, backend))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: gateway.NewHeaders(nil).ApplyCors().Wrap(handler)}
	go func() {
		io.Copy(io.Discard, input)
		server.Close()
	}()
	fmt.Fprintf(os.Stdout, "http://%s\n", listener.Addr())
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// fixedNames resolves the names of a table.
type fixedNames struct {
	namesys.Publisher // none: nothing is published
	targets           map[string]fixedTarget
}

func (names fixedNames) Resolve(_ context.Context, name path.Path, _ ...namesys.ResolveOption) (namesys.Result, error) {
	segments := name.Segments()
	label := segments[1]
	if key, err := ipns.NameFromString(label); err == nil {
		label = key.String()
	}
	target, known := names.targets[label]
	if !known {
		return namesys.Result{}, namesys.ErrResolveFailed
	}
	to, err := path.NewPath(target.Path)
	if err != nil {
		return namesys.Result{}, err
	}
	if to, err = path.Join(to, segments[2:]...); err != nil {
		return namesys.Result{}, err
	}
	return namesys.Result{Path: to, TTL: time.Duration(target.TTLs) * time.Second}, nil
}

func (names fixedNames) ResolveAsync(ctx context.Context, name path.Path, options ...namesys.ResolveOption) <-chan namesys.AsyncResult {
	result, err := names.Resolve(ctx, name, options...)
	answers := make(chan namesys.AsyncResult, 1)
	answers <- namesys.AsyncResult{Path: result.Path, TTL: result.TTL, Err: err}
	close(answers)
	return answers
}

// fixedRecords has the signed records of a table.
type fixedRecords struct {
	routing.ValueStore // none: only GetValue is asked
	records            map[string][]byte
}

func (store fixedRecords) GetValue(_ context.Context, key string, _ ...routing.Option) ([]byte, error) {
	name, err := ipns.NameFromRoutingKey([]byte(key))
	if err != nil {
		return nil, err
	}
	record, known := store.records[name.String()]
	if !known {
		return nil, routing.ErrNotFound
	}
	return record, nil
}
