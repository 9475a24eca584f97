package main

import (
	"context"

	bsfetcher "github.com/ipfs/boxo/fetcher/impl/blockservice"
	"github.com/ipfs/boxo/path"
	"github.com/ipfs/boxo/path/resolver"
	"github.com/ipfs/go-unixfsnode"
	dagpb "github.com/ipld/go-codec-dagpb"
)

// {"do": "resolve", "car", "paths": […]} → {"answers": [{"cid", "remainder"} or {"error"}]}, as boxo's gateway resolves
type resolveJob struct {
	Car   string   `json:"car"`
	Paths []string `json:"paths"`
}

type resolved struct {
	Cid       string   `json:"cid,omitempty"`
	Remainder []string `json:"remainder,omitempty"`
	Error     string   `json:"error,omitempty"`
}

func resolvePaths(ctx context.Context, job resolveJob) (any, error) {
	store := newStore()
	if _, err := readCar(ctx, job.Car, store.blocks); err != nil {
		return nil, err
	}
	config := bsfetcher.NewFetcherConfig(store.service)
	config.PrototypeChooser = dagpb.AddSupportToChooser(bsfetcher.DefaultPrototypeChooser)
	resolver := resolver.NewBasicResolver(config.WithReifier(unixfsnode.Reify))
	answers := make([]resolved, 0, len(job.Paths))
	for _, text := range job.Paths {
		answer, err := resolveOne(ctx, resolver, text)
		if err != nil {
			answer = resolved{Error: err.Error()}
		}
		answers = append(answers, answer)
	}
	return map[string][]resolved{"answers": answers}, nil
}

func resolveOne(ctx context.Context, resolver resolver.Resolver, text string) (resolved, error) {
	parsed, err := path.NewPath(text)
	if err != nil {
		return resolved{}, err
	}
	immutable, err := path.NewImmutablePath(parsed)
	if err != nil {
		return resolved{}, err
	}
	last, remainder, err := resolver.ResolveToLastNode(ctx, immutable)
	if err != nil {
		return resolved{}, err
	}
	return resolved{Cid: last.String(), Remainder: remainder}, nil
}
