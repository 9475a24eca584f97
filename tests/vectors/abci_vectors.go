// Makes tests/vectors/abci.json: CometBFT's protobuf messages, field by field, and a filled one of each in its bytes.
//
// Every run gives the same file for one version of CometBFT. In a checkout of 0.39 or 0.40, with this file in a
// new folder of it: go run ./FOLDER | jq -c . > abci.json
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"sort"
	"strings"
	"time"

	"github.com/cosmos/gogoproto/proto"

	abci "github.com/cometbft/cometbft/abci/types"
	"github.com/cometbft/cometbft/proto/tendermint/crypto"
	"github.com/cometbft/cometbft/proto/tendermint/types"
	"github.com/cometbft/cometbft/proto/tendermint/version"
)

type message struct {
	Name   string   `json:"name"`
	Fields []string `json:"fields"`
	Filled []byte   `json:"filled"`
	Empty  []byte   `json:"empty"`
}

var (
	made  = map[string]*message{}
	other = time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC)
)

var messageType = reflect.TypeOf((*proto.Message)(nil)).Elem()

// A field as the table of messages.py says it.
func describe(tag string, owner reflect.Type, t reflect.Type, oneof string) (string, reflect.Type) {
	parts := strings.Split(tag, ",")
	wire, number, name := parts[0], parts[1], ""
	for _, part := range parts {
		if strings.HasPrefix(part, "name=") {
			name = part[5:]
		}
	}
	repeated := parts[2] == "rep"
	if repeated {
		t = t.Elem()
	}
	var inner reflect.Type
	kind := ""
	switch {
	case t == reflect.TypeOf(time.Time{}):
		kind = "Timestamp"
	case t == reflect.TypeOf(time.Duration(0)):
		kind = "Duration"
	default:
		for t.Kind() == reflect.Ptr {
			t = t.Elem()
		}
		switch t.Kind() {
		case reflect.Struct:
			kind, inner = name_of(t), t
		case reflect.Slice:
			kind = "bytes"
		case reflect.Bool:
			kind = "bool"
		case reflect.String:
			kind = "string"
		default:
			kind = t.Kind().String()
			if wire == "fixed64" {
				kind = "s" + wire
			}
		}
	}
	text := fmt.Sprintf("%s=%s:%s", name, number, kind)
	if repeated {
		text += "[]"
	}
	if oneof != "" {
		text += "@" + oneof
	}
	return text, inner
}

func name_of(t reflect.Type) string {
	if t == reflect.TypeOf(abci.Validator{}) {
		return "AbciValidator"
	}
	return t.Name()
}

// Some value of a type that is not its zero one; `which` chooses among those of a oneof.
func fill(v reflect.Value, seed int64, which int, depth int) {
	t := v.Type()
	switch {
	case t == reflect.TypeOf(time.Time{}):
		v.Set(reflect.ValueOf(other.Add(time.Duration(seed) * time.Second)))
		return
	case t == reflect.TypeOf(time.Duration(0)):
		v.SetInt(seed*1_000_000_007 + 5)
		return
	}
	switch t.Kind() {
	case reflect.Ptr:
		v.Set(reflect.New(t.Elem()))
		fill(v.Elem(), seed, which, depth)
	case reflect.Struct:
		if depth > 6 {
			return
		}
		for i := 0; i < t.NumField(); i++ {
			field := t.Field(i)
			if field.Tag.Get("protobuf_oneof") != "" {
				wrappers := oneofs(t)
				chosen := reflect.New(wrappers[which%len(wrappers)].Elem())
				fill(chosen.Elem(), seed+1, 0, depth+1)
				v.Field(i).Set(chosen)
			} else if field.Tag.Get("protobuf") != "" {
				fill(v.Field(i), seed+int64(i)+1, 0, depth+1)
			}
		}
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			v.SetBytes([]byte(fmt.Sprintf("bytes %d", seed)))
			return
		}
		v.Set(reflect.MakeSlice(t, 2, 2))
		for i := 0; i < 2; i++ {
			fill(v.Index(i), seed+int64(7*i), 0, depth+1)
		}
	case reflect.String:
		v.SetString(fmt.Sprintf("text %d", seed))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(seed) * 1_000_003 % (1 << 32))
	case reflect.Int64:
		v.SetInt(-seed * 1_000_000_007)
	case reflect.Int32:
		v.SetInt(-seed)
	}
}

func oneofs(t reflect.Type) []reflect.Type {
	method := reflect.New(t).MethodByName("XXX_OneofWrappers")
	var found []reflect.Type
	for _, each := range method.Call(nil)[0].Interface().([]interface{}) {
		found = append(found, reflect.TypeOf(each))
	}
	return found
}

func marshal(v reflect.Value) []byte {
	raw, err := proto.Marshal(v.Interface().(proto.Message))
	if err != nil {
		panic(err)
	}
	return raw
}

func note(t reflect.Type) {
	name := name_of(t)
	if made[name] != nil || name == "" {
		return
	}
	entry := &message{Name: name, Fields: []string{}}
	made[name] = entry
	add := func(tag string, f reflect.Type, oneof string) {
		text, inner := describe(tag, t, f, oneof)
		entry.Fields = append(entry.Fields, text)
		if inner != nil {
			note(inner)
		}
	}
	for i := 0; i < t.NumField(); i++ {
		field := t.Field(i)
		if oneof := field.Tag.Get("protobuf_oneof"); oneof != "" {
			for _, wrapper := range oneofs(t) {
				add(wrapper.Elem().Field(0).Tag.Get("protobuf"), wrapper.Elem().Field(0).Type, oneof)
			}
		} else if tag := field.Tag.Get("protobuf"); tag != "" {
			add(tag, field.Type, "")
		}
	}
	entry.Empty = marshal(reflect.New(t))
	filled := reflect.New(t)
	fill(filled.Elem(), int64(len(name)), 0, 0)
	entry.Filled = marshal(filled)
}

func main() {
	for _, each := range []proto.Message{
		&abci.Request{}, &abci.Response{}, &abci.TxResult{}, &types.Block{}, &types.LightBlock{}, &types.TxProof{},
		&types.CanonicalVote{}, &types.CanonicalProposal{}, &types.HashedParams{}, &types.SimpleValidator{},
		&crypto.ProofOps{}, &crypto.ValueOp{}, &version.Consensus{},
	} {
		note(reflect.TypeOf(each).Elem())
	}
	names := []string{}
	for name := range made {
		names = append(names, name)
	}
	sort.Strings(names)
	all := []*message{}
	for _, name := range names {
		all = append(all, made[name])
	}
	if err := json.NewEncoder(os.Stdout).Encode(all); err != nil {
		panic(err)
	}
}
