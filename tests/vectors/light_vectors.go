// Makes tests/vectors/light.json: light blocks and what CometBFT's own light client says of them.
//
// Keys come from fixed secrets and times are fixed, so that a run gives the same file again. In a checkout of
// CometBFT 0.39 or 0.40, with this file in a new folder of it: go run ./FOLDER | jq -c . > light.json
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/cometbft/cometbft/crypto"
	"github.com/cometbft/cometbft/crypto/ed25519"
	"github.com/cometbft/cometbft/crypto/tmhash"
	cmtmath "github.com/cometbft/cometbft/libs/math"
	"github.com/cometbft/cometbft/light"
	cmtproto "github.com/cometbft/cometbft/proto/tendermint/types"
	cmtversion "github.com/cometbft/cometbft/proto/tendermint/version"
	"github.com/cometbft/cometbft/types"
)

const chain = "vectors"

var (
	start = time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC)
	now   = start.Add(2 * time.Hour)
)

type block struct {
	Name       string   `json:"name"`
	Raw        []byte   `json:"raw"`
	Hash       []byte   `json:"hash"`
	Validators []byte   `json:"validators_hash"`
	Commit     []byte   `json:"commit_hash"`
	SignBytes  [][]byte `json:"sign_bytes"`
}

type verdict struct {
	Trusted string `json:"trusted"`
	New     string `json:"new"`
	NowNs   int64  `json:"now_ns"`
	PeriodS int64  `json:"period_s"`
	Level   [2]int `json:"level"`
	Outcome string `json:"outcome"`
	Says    string `json:"says"`
}

type keys []crypto.PrivKey

func named(names ...string) keys {
	var found keys
	for _, name := range names {
		found = append(found, ed25519.GenPrivKeyFromSecret([]byte(name)))
	}
	return found
}

// powers[i] is that of the key i; the set puts them in its own order.
func (k keys) set(powers ...int64) *types.ValidatorSet {
	var all []*types.Validator
	for i, key := range k {
		all = append(all, types.NewValidator(key.PubKey(), powers[i]))
	}
	return types.NewValidatorSet(all)
}

// How each key of a set votes, by its place in `keys`.
type votes []types.BlockIDFlag

const (
	yes    = types.BlockIDFlagCommit
	none   = types.BlockIDFlagNil
	absent = types.BlockIDFlagAbsent
)

func every(flag types.BlockIDFlag, count int) votes {
	var all votes
	for i := 0; i < count; i++ {
		all = append(all, flag)
	}
	return all
}

type options struct {
	chain   string
	height  int64
	at      time.Duration
	next    *types.ValidatorSet
	round   int32
	last    []byte
	appHash []byte
}

func (k keys) block(set *types.ValidatorSet, cast votes, with options) *types.LightBlock {
	if with.chain == "" {
		with.chain = chain
	}
	if with.next == nil {
		with.next = set
	}
	if with.appHash == nil {
		with.appHash = tmhash.Sum([]byte("app"))
	}
	header := &types.Header{
		Version:            cmtversion.Consensus{Block: 11, App: uint64(with.height % 3)},
		ChainID:            with.chain,
		Height:             with.height,
		Time:               start.Add(with.at),
		LastCommitHash:     tmhash.Sum([]byte("last commit")),
		DataHash:           types.Txs{[]byte("one"), []byte("two"), []byte("three")}.Hash(),
		ValidatorsHash:     set.Hash(),
		NextValidatorsHash: with.next.Hash(),
		ConsensusHash:      tmhash.Sum([]byte("consensus")),
		AppHash:            with.appHash,
		LastResultsHash:    tmhash.Sum([]byte("results")),
		ProposerAddress:    set.Validators[0].Address,
	}
	if with.last != nil {
		header.LastBlockID = types.BlockID{
			Hash: with.last, PartSetHeader: types.PartSetHeader{Total: 300, Hash: tmhash.Sum(with.last)},
		}
	}
	id := types.BlockID{
		Hash: header.Hash(), PartSetHeader: types.PartSetHeader{Total: 2, Hash: tmhash.Sum([]byte("parts"))},
	}
	signatures := make([]types.CommitSig, len(set.Validators))
	for i := range signatures {
		signatures[i] = types.NewCommitSigAbsent()
	}
	for i, key := range k {
		if cast[i] == absent {
			continue
		}
		index, _ := set.GetByAddress(key.PubKey().Address())
		vote := &types.Vote{
			ValidatorAddress: key.PubKey().Address(), ValidatorIndex: index, Height: with.height,
			Round: with.round, Type: cmtproto.PrecommitType,
			Timestamp: start.Add(with.at + time.Duration(i)*1001*time.Millisecond),
		}
		if cast[i] == yes {
			vote.BlockID = id
		}
		signature, err := key.Sign(types.VoteSignBytes(with.chain, vote.ToProto()))
		must(err)
		vote.Signature = signature
		signatures[index] = vote.CommitSig()
	}
	commit := &types.Commit{Height: with.height, Round: with.round, BlockID: id, Signatures: signatures}
	return &types.LightBlock{
		SignedHeader: &types.SignedHeader{Header: header, Commit: commit}, ValidatorSet: set,
	}
}

func (k keys) indexIn(set *types.ValidatorSet, i int) int {
	index, _ := set.GetByAddress(k[i].PubKey().Address())
	return int(index)
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

var (
	names  []string
	blocks = map[string]*types.LightBlock{}
	cases  []verdict
)

func add(name string, made *types.LightBlock) *types.LightBlock {
	names = append(names, name)
	blocks[name] = made
	return made
}

func try(trusted, next string) { tryAt(trusted, next, now, 3*time.Hour, light.DefaultTrustLevel) }

func tryAt(trusted, next string, at time.Time, period time.Duration, level cmtmath.Fraction) {
	a, b := blocks[trusted], blocks[next]
	var err error
	func() {
		defer func() {
			if caught := recover(); caught != nil {
				err = fmt.Errorf("panic: %v", caught)
			}
		}()
		err = light.Verify(a.SignedHeader, a.ValidatorSet, b.SignedHeader, b.ValidatorSet, period, at, 10*time.Second, level)
	}()
	outcome, says := "ok", ""
	var expired light.ErrOldHeaderExpired
	var untrusted light.ErrNewValSetCantBeTrusted
	if err != nil {
		outcome, says = "invalid", err.Error()
		if errors.As(err, &expired) {
			outcome = "expired"
		} else if errors.As(err, &untrusted) {
			outcome = "untrusted"
		}
	}
	cases = append(cases, verdict{
		trusted, next, at.UnixNano(), int64(period / time.Second),
		[2]int{int(level.Numerator), int(level.Denominator)}, outcome, says,
	})
}

func main() {
	four := named("a", "b", "c", "d")
	set := four.set(20, 30, 40, 50)
	other := four.set(10, 11, 12, 13)
	all := every(yes, 4)
	first := four.block(set, all, options{height: 1})
	add("first", first)

	// As in the cases of light/verifier_test.go: adjacent ones.
	hour := time.Hour
	add("2 other chain", four.block(set, all, options{chain: "other", height: 2, at: hour}))
	add("2 earlier", four.block(set, all, options{height: 2, at: -hour}))
	add("2 same time", four.block(set, all, options{height: 2}))
	add("2 from the future", four.block(set, all, options{height: 2, at: 3 * hour}))
	add("2 drift", four.block(set, all, options{height: 2, at: 2*hour + 10*time.Second - time.Millisecond}))
	add("2 drift over", four.block(set, all, options{height: 2, at: 2*hour + 10*time.Second}))
	add("2", four.block(set, all, options{height: 2, at: hour, last: first.Hash()}))
	add("2 two thirds", four.block(set, votes{absent, yes, yes, yes}, options{height: 2, at: hour}))
	add("2 one third", four.block(set, votes{absent, absent, absent, yes}, options{height: 2, at: hour}))
	add("2 other validators", four.block(other, all, options{height: 2, at: hour}))
	wrong := *blocks["2"]
	wrong.ValidatorSet = other
	add("2 shown with others", &wrong)
	for _, each := range names {
		try("first", each)
	}
	tryAt("first", "2", start.Add(hour), hour, light.DefaultTrustLevel)
	tryAt("first", "2", start.Add(hour-1), hour, light.DefaultTrustLevel)
	tryAt("first", "2", start.Add(hour+1), hour, light.DefaultTrustLevel)

	// Nil votes, absent ones, rounds.
	add("2 round 7, one nil", four.block(set, votes{none, yes, yes, yes}, options{height: 2, at: hour, round: 7}))
	add("2 largest nil", four.block(set, votes{yes, yes, yes, none}, options{height: 2, at: hour}))
	add("2 one absent, one nil", four.block(set, votes{absent, none, yes, yes}, options{height: 2, at: hour}))
	equal := named("e", "f", "g").set(1, 1, 1)
	add("three", named("e", "f", "g").block(equal, every(yes, 3), options{height: 1}))
	add("three, two signed", named("e", "f", "g").block(equal, votes{yes, yes, absent}, options{height: 2, at: hour}))
	add("three, all signed", named("e", "f", "g").block(equal, every(yes, 3), options{height: 2, at: hour}))
	for _, each := range []string{"2 round 7, one nil", "2 largest nil", "2 one absent, one nil"} {
		try("first", each)
	}
	try("three", "three, two signed")
	try("three", "three, all signed")

	// Not adjacent: how much of the trusted power signed.
	three := four[1:]
	threeSet := three.set(30, 40, 50)
	add("5", four.block(set, all, options{height: 5, at: hour}))
	add("5 one third", four.block(set, votes{absent, absent, absent, yes}, options{height: 5, at: hour}))
	add("5 three left", three.block(threeSet, every(yes, 3), options{height: 5, at: hour}))
	add("5 largest left", four[3:].block(four[3:].set(50), every(yes, 1), options{height: 5, at: hour}))
	add("5 smallest left", four[:1].block(four[:1].set(20), every(yes, 1), options{height: 5, at: hour}))
	add("5 strangers", named("x", "y").block(named("x", "y").set(5, 5), every(yes, 2), options{height: 5, at: hour}))
	mixed := append(append(keys{}, four[2:]...), named("x", "y")...)
	add("5 mixed", mixed.block(mixed.set(40, 50, 40, 50), every(yes, 4), options{height: 5, at: hour}))
	add("5 mixed, only old ones sign", mixed.block(mixed.set(40, 50, 400, 500), votes{yes, yes, absent, absent}, options{height: 5, at: hour}))
	add("5 mixed, only new ones sign", mixed.block(mixed.set(4, 5, 400, 500), votes{none, absent, yes, yes}, options{height: 5, at: hour}))
	for _, each := range []string{
		"5", "5 one third", "5 three left", "5 largest left", "5 smallest left", "5 strangers", "5 mixed",
		"5 mixed, only old ones sign", "5 mixed, only new ones sign",
	} {
		try("first", each)
		tryAt("first", each, now, 3*hour, cmtmath.Fraction{Numerator: 2, Denominator: 3})
		tryAt("first", each, now, 3*hour, cmtmath.Fraction{Numerator: 1, Denominator: 1})
	}
	try("5", "first")
	try("5", "5")

	// A changed set: the next header has the one that this one names.
	two := named("a", "q")
	twoSet := two.set(7, 3)
	add("7 names others", four.block(set, all, options{height: 7, at: hour, next: twoSet}))
	add("8 of them", two.block(twoSet, every(yes, 2), options{height: 8, at: hour + time.Minute}))
	add("8 of the old ones", four.block(set, all, options{height: 8, at: hour + time.Minute}))
	try("7 names others", "8 of them")
	try("7 names others", "8 of the old ones")
	try("5", "8 of them")
	try("5", "7 names others")

	// Damage, of the block "5": each a block of its own.
	damaged := func(name string, change func(*types.LightBlock)) {
		made := four.block(set, all, options{height: 5, at: hour})
		change(made)
		add(name, made)
		try("first", name)
	}
	damaged("app hash changed", func(b *types.LightBlock) { b.AppHash = tmhash.Sum([]byte("forged")) })
	damaged("header changed with the commit", func(b *types.LightBlock) {
		b.AppHash = tmhash.Sum([]byte("forged"))
		b.Commit.BlockID.Hash = b.SignedHeader.Header.Hash()
	})
	damaged("commit of another height", func(b *types.LightBlock) { b.Commit.Height = 6 })
	damaged("commit of another round", func(b *types.LightBlock) { b.Commit.Round = 1 })
	damaged("other parts", func(b *types.LightBlock) { b.Commit.BlockID.PartSetHeader.Total = 3 })
	damaged("votes swapped", func(b *types.LightBlock) {
		s := b.Commit.Signatures
		s[0], s[1] = s[1], s[0]
	})
	damaged("a vote too few", func(b *types.LightBlock) { b.Commit.Signatures = b.Commit.Signatures[:3] })
	damaged("a vote too many", func(b *types.LightBlock) {
		b.Commit.Signatures = append(b.Commit.Signatures, b.Commit.Signatures[0])
	})
	damaged("the same vote twice", func(b *types.LightBlock) { b.Commit.Signatures[1] = b.Commit.Signatures[0] })
	damaged("all absent", func(b *types.LightBlock) {
		for i := range b.Commit.Signatures {
			b.Commit.Signatures[i] = types.NewCommitSigAbsent()
		}
	})
	damaged("nil votes posed as votes for it", func(b *types.LightBlock) {
		nils := four.block(set, every(none, 4), options{height: 5, at: hour})
		b.Commit.Signatures = nils.Commit.Signatures
		for i := range b.Commit.Signatures {
			b.Commit.Signatures[i].BlockIDFlag = yes
		}
	})
	damaged("the largest signature changed", func(b *types.LightBlock) {
		b.Commit.Signatures[four.indexIn(set, 3)].Signature[3] ^= 1
	})
	damaged("two signatures changed", func(b *types.LightBlock) {
		b.Commit.Signatures[four.indexIn(set, 3)].Signature[3] ^= 1
		b.Commit.Signatures[four.indexIn(set, 2)].Signature[60] ^= 1
	})
	damaged("the smallest signature changed", func(b *types.LightBlock) {
		b.Commit.Signatures[four.indexIn(set, 0)].Signature[3] ^= 1
	})
	damaged("a vote's time changed", func(b *types.LightBlock) {
		i := four.indexIn(set, 3)
		b.Commit.Signatures[i].Timestamp = b.Commit.Signatures[i].Timestamp.Add(time.Nanosecond)
	})
	damaged("no signature", func(b *types.LightBlock) { b.Commit.Signatures[0].Signature = nil })
	damaged("short signature", func(b *types.LightBlock) { b.Commit.Signatures[0].Signature = b.Commit.Signatures[0].Signature[:63] })
	damaged("long signature", func(b *types.LightBlock) { b.Commit.Signatures[0].Signature = make([]byte, 97) })
	damaged("block protocol", func(b *types.LightBlock) {
		b.Version.Block = 10
		b.Commit.BlockID.Hash = b.SignedHeader.Header.Hash()
	})
	damaged("long chain ID", func(b *types.LightBlock) {
		b.ChainID = "vectorsvectorsvectorsvectorsvectorsvectorsvectorsvectors"
		b.Commit.BlockID.Hash = b.SignedHeader.Header.Hash()
	})
	damaged("powers changed", func(b *types.LightBlock) { b.ValidatorSet = four.set(20, 30, 40, 51) })

	out := struct {
		Chain  string    `json:"chain"`
		Blocks []block   `json:"blocks"`
		Cases  []verdict `json:"cases"`
	}{Chain: chain, Cases: cases}
	for _, name := range names {
		made := blocks[name]
		pb, err := made.ToProto()
		must(err)
		raw, err := pb.Marshal()
		must(err)
		one := block{
			Name: name, Raw: raw, Hash: made.SignedHeader.Header.Hash(), Validators: made.ValidatorSet.Hash(),
			Commit: (&types.Commit{Signatures: made.Commit.Signatures}).Hash(),
		}
		for i := range made.Commit.Signatures {
			one.SignBytes = append(one.SignBytes, made.Commit.VoteSignBytes(made.ChainID, int32(i)))
		}
		out.Blocks = append(out.Blocks, one)
	}
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetIndent("", " ")
	must(encoder.Encode(out))
}
