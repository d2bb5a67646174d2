package transforms

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"hash/fnv"
	"io"
	"math/big"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/overloads"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"

	"reprise/transforms/record"
)

// functions are those that CEL and its libraries lack, and timestamp, which reads texts as all of Reprise does and
// takes no year for seconds.
func functions() []cel.EnvOption {
	return []cel.EnvOption{
		cel.Function(overloads.TypeConvertTimestamp,
			cel.Overload(overloads.TimestampToTimestamp, []*cel.Type{cel.TimestampType}, cel.TimestampType,
				cel.UnaryBinding(func(v ref.Val) ref.Val { return v })),
			cel.Overload(overloads.StringToTimestamp, []*cel.Type{cel.StringType}, cel.TimestampType,
				cel.UnaryBinding(textTime)),
			cel.Overload(overloads.IntToTimestamp, []*cel.Type{cel.IntType}, cel.TimestampType,
				cel.UnaryBinding(secondsTime))),
		cel.Function("lower", cel.MemberOverload("string_lower", []*cel.Type{cel.StringType}, cel.StringType,
			cel.UnaryBinding(func(v ref.Val) ref.Val {
				return types.String(strings.ToLower(string(v.(types.String))))
			}))),
		cel.Function("upper", cel.MemberOverload("string_upper", []*cel.Type{cel.StringType}, cel.StringType,
			cel.UnaryBinding(func(v ref.Val) ref.Val {
				return types.String(strings.ToUpper(string(v.(types.String))))
			}))),
		cel.Function("time_of", cel.Overload("time_of_string", []*cel.Type{cel.StringType}, cel.TimestampType,
			cel.UnaryBinding(func(v ref.Val) ref.Val {
				at, ok := timeOf(string(v.(types.String)))
				if !ok {
					return types.NewErr("%.40q is not a valid timeuuid, UUID of version 7 or ULID",
						string(v.(types.String)))
				}
				return types.Timestamp{Time: at}
			}))),
		cel.Function("json", cel.Overload("json_string", []*cel.Type{cel.StringType}, cel.DynType,
			cel.UnaryBinding(func(v ref.Val) ref.Val { return parseJSON(string(v.(types.String))) }))),
		cel.Function("hash",
			cel.Overload("hash_string", []*cel.Type{cel.StringType}, cel.IntType,
				cel.UnaryBinding(func(v ref.Val) ref.Val { return stableHash(string(v.(types.String))) })),
			cel.Overload("hash_bytes", []*cel.Type{cel.BytesType}, cel.IntType,
				cel.UnaryBinding(func(v ref.Val) ref.Val { return stableHash(string(v.(types.Bytes))) }))),
		cel.Function("merge", cel.Overload("merge_maps", []*cel.Type{anyMap, anyMap}, anyMap,
			cel.BinaryBinding(func(m, n ref.Val) ref.Val { return merge(m, n, nil) }))),
		cel.Function("without", cel.Overload("without_keys", []*cel.Type{anyMap, cel.ListType(cel.TypeParamType("K"))},
			anyMap,
			cel.BinaryBinding(func(m, keys ref.Val) ref.Val { return merge(m, nil, keys) }))),
	}
}

func textTime(v ref.Val) ref.Val {
	at, err := record.ParseTime(string(v.(types.String)))
	if err != nil {
		return types.NewErrFromString(err.Error())
	}
	if at.Year() < 1 || at.Year() > 9999 {
		return types.NewErr("%q is beyond the times of expressions, the years 1 to 9999", v.Value())
	}
	return types.Timestamp{Time: at}
}

// secondsTime takes seconds since 1970, as CEL says. Years and days by their digits are none, nor are milliseconds,
// which CEL finds too large.
func secondsTime(v ref.Val) ref.Val {
	const least = 100_000_000 // 1973
	if n := v.(types.Int); n != 0 && n > -least && n < least {
		return types.NewErr("timestamp(%d) is not a valid time: numbers are seconds since 1970 here; write "+
			"timestamp(\"2024-05-01T00:00:00Z\")", n)
	}
	return v.ConvertToType(types.TimestampType)
}

var anyMap = cel.MapType(cel.TypeParamType("K"), cel.TypeParamType("V"))

// merge is the map m with the entries of n, which win, and without some keys; n and without may be nil.
func merge(m, n, without ref.Val) ref.Val {
	all := map[ref.Val]ref.Val{}
	each := func(of ref.Val, f func(key ref.Val)) ref.Val {
		for it := of.(traits.Iterable).Iterator(); it.HasNext() == types.True; {
			switch key := it.Next().(type) {
			case types.String, types.Int, types.Uint, types.Double, types.Bool:
				f(key)
			default:
				return types.NewErr("keys of type %s cannot be merged: texts, numbers, true and false can",
					key.Type().TypeName())
			}
		}
		return nil
	}
	for _, of := range []ref.Val{m, n} {
		if of == nil {
			continue
		}
		if err := each(of, func(key ref.Val) { all[key] = of.(traits.Mapper).Get(key) }); err != nil {
			return err
		}
	}
	if without != nil {
		if err := each(without, func(key ref.Val) { delete(all, key) }); err != nil {
			return err
		}
	}
	return types.NewRefValMap(types.DefaultTypeAdapter, all)
}

// parseJSON is a JSON text as CEL values: numbers without a fraction or exponent are ints, others doubles. One that
// neither holds is an error for whoever asks for it.
func parseJSON(text string) ref.Val {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return types.NewErr("%.40q is not JSON: %v", text, err)
	}
	if _, err := d.Token(); err != io.EOF {
		return types.NewErr("%.40q is not JSON: something follows the value", text)
	}
	return types.DefaultTypeAdapter.NativeToValue(numbers(v))
}

// numbers replaces each json.Number within v.
func numbers(v any) any {
	switch v := v.(type) {
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n
		}
		f, err := v.Float64()
		exact, whole := new(big.Int).SetString(v.String(), 10)
		if err != nil || whole && new(big.Float).SetFloat64(f).Cmp(new(big.Float).SetInt(exact)) != 0 {
			return types.NewErr("%.60s has more digits than a number of expressions holds", v)
		}
		return f
	case []any:
		for i := range v {
			v[i] = numbers(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = numbers(v[k])
		}
	}
	return v
}

// stableHash is FNV-1a of 64 bits without the sign, the same for ever: hash(id) % 16 is a stable bucket.
func stableHash(s string) types.Int {
	h := fnv.New64a()
	h.Write([]byte(s))
	return types.Int(h.Sum64() &^ (1 << 63))
}

// timeOf is the time in an id that sorts by time: a UUID of version 1 (timeuuid) or 7, or a ULID.
func timeOf(id string) (time.Time, bool) {
	if len(id) == 26 {
		return ulidTime(id)
	}
	b, err := hex.DecodeString(strings.ReplaceAll(id, "-", ""))
	if err != nil || len(b) != 16 {
		return time.Time{}, false
	}
	switch b[6] >> 4 {
	case 1:
		return record.UUIDTime(string(b)), true
	case 7:
		return time.UnixMilli(int64(binary.BigEndian.Uint64(b) >> 16)).UTC(), true
	}
	return time.Time{}, false
}

const crockford = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

// ulidTime reads the 48 bits of milliseconds in the first ten characters of a ULID.
func ulidTime(id string) (time.Time, bool) {
	var ms int64
	for i, c := range strings.ToUpper(id) {
		n := strings.IndexRune(crockford, c)
		if n < 0 || (i == 0 && n > 7) {
			return time.Time{}, false
		}
		if i < 10 {
			ms = ms<<5 | int64(n)
		}
	}
	return time.UnixMilli(ms).UTC(), true
}
