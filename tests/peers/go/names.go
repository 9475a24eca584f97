package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"fmt"
	"time"

	"github.com/ipfs/boxo/ipns"
	"github.com/ipfs/boxo/path"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
)

// {"do": "sign", "seed": 32 bytes of an Ed25519 key, "value", "sequence", "eol": RFC 3339, "ttl_ns", "v1": bool,
// "embed": bool} → {"name", "record"}; bytes are base64, as everywhere in JSON of Go. With "kind" ("rsa", "ecdsa",
// "secp256k1") the key is a new one of that kind.
type signJob struct {
	Kind     string    `json:"kind"`
	Seed     []byte    `json:"seed"`
	Value    string    `json:"value"`
	Sequence uint64    `json:"sequence"`
	EOL      time.Time `json:"eol"`
	TTL      int64     `json:"ttl_ns"`
	V1       bool      `json:"v1"`
	Embed    *bool     `json:"embed"`
}

func signRecord(_ context.Context, job signJob) (any, error) {
	key, err := job.key()
	if err != nil {
		return nil, err
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		return nil, err
	}
	value, err := path.NewPath(job.Value)
	if err != nil {
		return nil, err
	}
	choices := []ipns.Option{ipns.WithV1Compatibility(job.V1)}
	if job.Embed != nil {
		choices = append(choices, ipns.WithPublicKey(*job.Embed))
	}
	record, err := ipns.NewRecord(key, value, job.Sequence, job.EOL, time.Duration(job.TTL), choices...)
	if err != nil {
		return nil, err
	}
	raw, err := ipns.MarshalRecord(record)
	if err != nil {
		return nil, err
	}
	return map[string]any{"name": ipns.NameFromPeer(id).String(), "record": raw}, nil
}

var keyKinds = map[string]int{"rsa": crypto.RSA, "ecdsa": crypto.ECDSA, "secp256k1": crypto.Secp256k1}

func (job signJob) key() (crypto.PrivKey, error) {
	if job.Kind == "" {
		return crypto.UnmarshalEd25519PrivateKey(ed25519.NewKeyFromSeed(job.Seed))
	}
	kind, known := keyKinds[job.Kind]
	if !known {
		return nil, fmt.Errorf("unknown kind of key %q", job.Kind)
	}
	key, _, err := crypto.GenerateKeyPair(kind, 2048)
	return key, err
}

// {"do": "validate", "name", "records": […]} → {"verdicts": [{"ok", "error", "value", "sequence", "ttl_ns", "eol"}]}
type validateJob struct {
	Name    string   `json:"name"`
	Records [][]byte `json:"records"`
}

type nameVerdict struct {
	OK       bool   `json:"ok"`
	Error    string `json:"error,omitempty"`
	Value    string `json:"value,omitempty"`
	Sequence uint64 `json:"sequence"`
	TTL      int64  `json:"ttl_ns"`
	EOL      string `json:"eol,omitempty"`
}

func validateRecords(_ context.Context, job validateJob) (any, error) {
	name, err := ipns.NameFromString(job.Name)
	if err != nil {
		return nil, err
	}
	verdicts := make([]nameVerdict, 0, len(job.Records))
	for _, raw := range job.Records {
		verdict, err := validateOne(name, raw)
		if err != nil {
			verdict = nameVerdict{Error: err.Error()}
		}
		verdicts = append(verdicts, verdict)
	}
	return map[string][]nameVerdict{"verdicts": verdicts}, nil
}

func validateOne(name ipns.Name, raw []byte) (nameVerdict, error) {
	record, err := ipns.UnmarshalRecord(raw)
	if err != nil {
		return nameVerdict{}, err
	}
	if err := ipns.ValidateWithName(record, name); err != nil {
		return nameVerdict{}, err
	}
	value, err := record.Value()
	if err != nil {
		return nameVerdict{}, err
	}
	sequence, err := record.Sequence()
	if err != nil {
		return nameVerdict{}, err
	}
	ttl, err := record.TTL()
	if err != nil {
		return nameVerdict{}, err
	}
	eol, err := record.Validity()
	if err != nil {
		return nameVerdict{}, err
	}
	return nameVerdict{true, "", value.String(), sequence, int64(ttl), eol.UTC().Format(time.RFC3339Nano)}, nil
}

// {"do": "select", "records": […]} → {"chosen": index of the best}
type selectJob struct {
	Records [][]byte `json:"records"`
}

func selectRecord(_ context.Context, job selectJob) (any, error) {
	chosen, err := ipns.Validator{}.Select("", job.Records)
	return map[string]int{"chosen": chosen}, err
}

// decodeRecord is for fuzzing: whether the bytes are a record at all.
func decodeRecord(raw []byte) ([]byte, error) {
	record, err := ipns.UnmarshalRecord(bytes.Clone(raw))
	if err != nil {
		return nil, err
	}
	return ipns.MarshalRecord(record)
}
