package elasticsearchio

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"reprise/transforms/record"
)

// dates reads the values of a date field as the server does: by the formats of its mapping, of which the first that
// takes a text reads it. Numbers are texts to them: 2024 is a year by the default formats, and no number of
// milliseconds. It reads less than the server does, which takes some texts that differ from what a format says
// (2024-02-30, years of other lengths, names of zones): those are errors.
type dates struct {
	text    string // the formats
	formats []dateFormat
	nanos   bool // the field holds nanoseconds
	floor   bool // digits below milliseconds are cut off, as the server does for a date; else they are an error
}

// dateFormat is one format.
type dateFormat struct {
	unit time.Duration  // of a number since 1970; 0: none, but a pattern
	read *regexp.Regexp // nil: a format that is not known here
	may  *regexp.Regexp // what the server may take beyond that
}

const defaultDates = "strict_date_optional_time||epoch_millis"

// namedDates are formats of the server as patterns. Beside Java's letters there are f and F, a fraction with its
// point (or comma), and z, a zone; upper case Y is a year that may be of other lengths. Lenient formats are read
// where a text keeps to the strict ones.
var namedDates = func() map[string]string {
	named := map[string]string{"basic_date": "yyyyMMdd", "basic_date_time": "yyyyMMdd'T'HHmmss.SSSX",
		"basic_date_time_no_millis": "yyyyMMdd'T'HHmmssX"}
	for name, rest := range map[string]string{
		"date": "-MM-dd", "year": "", "year_month": "-MM", "year_month_day": "-MM-dd", "date_hour": "-MM-dd'T'HH",
		"date_hour_minute": "-MM-dd'T'HH:mm", "date_hour_minute_second": "-MM-dd'T'HH:mm:ss",
		"date_hour_minute_second_millis":   "-MM-dd'T'HH:mm:ss.SSS",
		"date_hour_minute_second_fraction": "-MM-dd'T'HH:mm:ss.SSS",
		"date_time":                        "-MM-dd'T'HH:mm:ssfz", "date_time_no_millis": "-MM-dd'T'HH:mm:ssz",
		"date_optional_time": "[-MM[-dd['T'[HH[:mm[:ss[F]][z]]]]]]",
	} {
		named[name], named["strict_"+name] = "Y"+rest, "uuuu"+rest
	}
	named["strict_date_optional_time"] = "uuuu[-MM[-dd['T'[HH[:mm[:ss[F]]][z]]]]]"
	named["strict_date_optional_time_nanos"] = "uuuu[-MM[-dd['T'HH:mm:ss[F][z]]]]"
	named["iso8601"] = named["strict_date_optional_time"]
	return named
}()

var knownDates sync.Map // of *dates by their text

// newDates gives a reader of a mapping's formats.
func newDates(p *property) *dates {
	d := &dates{nanos: p.Type == "date_nanos"}
	d.text = orDefault(p.Format, defaultDates)
	if known, ok := knownDates.Load(d.text); ok {
		d.formats = known.(*dates).formats
		return d
	}
	for _, text := range strings.Split(d.text, "||") {
		d.formats = append(d.formats, newDateFormat(strings.TrimSpace(text)))
	}
	knownDates.Store(d.text, d)
	return d
}

// known tells whether all formats can be read.
func (d *dates) known() bool {
	for _, f := range d.formats {
		if f.read == nil {
			return false
		}
	}
	return true
}

func newDateFormat(text string) dateFormat {
	number := regexp.MustCompile(`^[+-]?[\d.]+$`)
	switch text {
	case "epoch_millis":
		return dateFormat{unit: time.Millisecond, read: regexp.MustCompile(`^-?\d{1,18}(\.\d{1,9})?$`), may: number}
	case "epoch_second": // of negative ones the server adds the fraction
		read := regexp.MustCompile(`^(\d{1,15}(\.\d{1,9})?|-[1-9]\d{0,14})$`)
		return dateFormat{unit: time.Second, read: read, may: number}
	}
	pattern, named := namedDates[text]
	if !named {
		pattern = strings.TrimPrefix(text, "8") // an old mark of Java's patterns
	}
	read, may, err := compileDates(pattern, named)
	if err != nil {
		return dateFormat{}
	}
	return dateFormat{read: read, may: may}
}

// compileDates makes a pattern of Java two regular expressions: what is surely read so, and what might be.
func compileDates(pattern string, named bool) (read, may *regexp.Regexp, err error) {
	var sure, loose strings.Builder
	both := func(text string) { sure.WriteString(text); loose.WriteString(text) }
	number := func(i int) bool {
		return i >= 0 && i < len(pattern) && strings.IndexByte("yuYMdHmsS0123456789", pattern[i]) >= 0
	}
	depth, seen := 0, ""
	for i := 0; i < len(pattern); {
		c := pattern[i]
		n := 1
		for i+n < len(pattern) && pattern[i+n] == c {
			n++
		}
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if letter && strings.IndexByte(seen, c) >= 0 {
			return nil, nil, errors.New("a part that stands twice")
		}
		if letter {
			seen += string(c)
		}
		beside := number(i-1) || number(i+n)
		group := func(name, exact, wide string) {
			fmt.Fprintf(&sure, "(?P<%s>%s)", name, exact)
			fmt.Fprintf(&loose, "(?:%s)", wide)
		}
		switch {
		case c == 'Y' && named && n == 1:
			group("y", `-?\d{4}`, `[+-]?\d{1,12}`)
		case c == 'u' && named && n == 4:
			group("y", `-?\d{4}`, `\d{4}|[+-]\d+`)
		case (c == 'y' || c == 'u') && n == 4 && beside:
			group("y", `\d{4}`, `[+-]?\d+`)
		case (c == 'y' || c == 'u') && n == 4:
			group("y", `\d{4}`, `\d{4}|[+-]\d+`)
		case (c == 'y' || c == 'u') && n == 2:
			group("yy", `\d\d`, `[+-]?\d+`)
		case strings.IndexByte("MdHms", c) >= 0 && n == 2:
			group(string(c), `\d\d`, `[+-]?\d+`)
		case strings.IndexByte("MdHms", c) >= 0 && n == 1 && !beside:
			group(string(c), `\d\d?`, `[+-]?\d+`)
		case c == 'S' && n <= 9:
			group("f", fmt.Sprintf(`\d{%d}`, n), `\d+`)
		case (c == 'f' || c == 'F') && named:
			sure.WriteString(map[byte]string{'f': `\.`, 'F': `[.,]`}[c] + `(?P<f>\d{1,9})`)
			loose.WriteString(`[.,]?\d*`)
		case c == 'z' && named:
			group("z", `Z|[+-]\d\d(?::?\d\d)?`, `[A-Za-z+-].*`)
		case c == 'X' && n == 1:
			group("z", `Z|[+-]\d\d(?:\d\d)?`, `.+`)
		case c == 'X' && n <= 3, c == 'Z' && n == 5:
			group("z", `Z|[+-]\d\d`+strings.Repeat(":", max(0, min(n, 3)-2))+`\d\d`, `.+`)
		case c == 'Z' && n <= 3:
			group("z", `[+-]\d{4}`, `.+`)
		case c == '\'' && n > 1:
			return nil, nil, errors.New("a quote in the text")
		case c == '\'':
			end := strings.IndexByte(pattern[i+1:], '\'')
			if end < 0 {
				return nil, nil, errors.New("a quote without end")
			}
			both(regexp.QuoteMeta(pattern[i+1 : i+1+end]))
			n = end + 2
		case c == '[':
			depth += n
			both(strings.Repeat("(?:", n))
		case c == ']' && n <= depth:
			depth -= n
			both(strings.Repeat(")?", n))
		case letter || strings.IndexByte("]{}#", c) >= 0:
			return nil, nil, fmt.Errorf("%q", pattern[i:i+n])
		default:
			both(regexp.QuoteMeta(pattern[i : i+n]))
		}
		i += n
	}
	if depth != 0 || strings.IndexByte(seen, 'u') < 0 && strings.IndexAny(seen, "yY") < 0 {
		return nil, nil, errors.New("no year")
	}
	if read, err = regexp.Compile("^" + sure.String() + "$"); err == nil {
		may, err = regexp.Compile("(?s)^" + loose.String() + "$")
	}
	return read, may, err
}

// value reads the JSON of a date as a value of a kind, a timestamp or a date.
func (d *dates) value(kind record.Kind, raw string) (record.Value, error) {
	text := raw
	switch {
	case raw[0] == '"':
		var err error
		if text, err = parseText(raw); err != nil {
			return record.Value{}, err
		}
	case raw[0] != '-' && (raw[0] < '0' || raw[0] > '9'):
		return record.Value{}, fmt.Errorf("%.60s is not a valid date", raw)
	}
	at, err := d.parse(text)
	if err != nil {
		return record.Value{}, err
	}
	ms := at.UnixMilli()
	switch {
	case at.Nanosecond()%1e6 != 0 && !(d.floor && !d.nanos):
		return record.Value{}, fmt.Errorf("%.60s has digits below milliseconds, which a %s does not hold", raw, kind)
	case kind == record.Timestamp:
		return record.Number(kind, ms), nil
	case ms%86_400_000 != 0:
		return record.Value{}, fmt.Errorf("%.60s is not a valid %s, but a time of day", raw, kind)
	}
	return record.Number(kind, ms/86_400_000), nil
}

// parse reads a text.
func (d *dates) parse(text string) (time.Time, error) {
	for _, f := range d.formats {
		if f.read == nil {
			return time.Time{}, fmt.Errorf("%.60q cannot be read by the format %q of the index: read it as a text",
				text, d.text)
		}
		if at, ok := f.parse(text); ok {
			return at, nil
		}
		if f.may.MatchString(text) {
			break
		}
	}
	return time.Time{}, fmt.Errorf("%.60q is not written as the format %q of the index says", text, d.text)
}

func (f dateFormat) parse(text string) (at time.Time, ok bool) {
	parts := f.read.FindStringSubmatch(text)
	if parts == nil {
		return at, false
	}
	if f.unit != 0 {
		return f.sinceEpoch(text)
	}
	year, month, day, hour, minute, second, nanos, offset := 0, 1, 1, 0, 0, 0, 0, 0
	for i, name := range f.read.SubexpNames() {
		part := parts[i]
		if i == 0 || part == "" {
			continue
		}
		n, _ := strconv.Atoi(part)
		switch name {
		case "y":
			if year = n; n == 0 {
				return at, false // of an era there is none
			}
		case "yy":
			year = 2000 + n
		case "M":
			month = n
		case "d":
			day = n
		case "H":
			hour = n
		case "m":
			minute = n
		case "s":
			second = n
		case "f":
			nanos, _ = strconv.Atoi((part + "00000000")[:9])
		case "z":
			if offset, ok = zone(part); !ok {
				return at, false
			}
		}
	}
	at = time.Date(year, time.Month(month), day, hour, minute, second, nanos, time.UTC)
	if at.Year() != year || int(at.Month()) != month || at.Day() != day || hour > 23 || minute > 59 || second > 59 {
		return at, false
	}
	return at.Add(-time.Duration(offset) * time.Second), true
}

// sinceEpoch reads a number of the format's unit since 1970.
func (f dateFormat) sinceEpoch(text string) (at time.Time, ok bool) {
	whole, fraction, _ := strings.Cut(text, ".")
	n, err := strconv.ParseInt(whole, 10, 64)
	if err != nil {
		return at, false
	}
	part, _ := strconv.ParseInt((fraction + "000000000")[:9], 10, 64) // billionths of a unit
	if strings.HasPrefix(text, "-") {
		part = -part
	}
	if f.unit == time.Second {
		return time.Unix(n, part), true
	}
	return time.UnixMilli(n).Add(time.Duration(part / 1000)), true
}

// zone is an offset from UTC in seconds: Z, +02, +0200 or +02:00.
func zone(text string) (seconds int, ok bool) {
	if text == "Z" {
		return 0, true
	}
	digits := (strings.ReplaceAll(text[1:], ":", "") + "00")[:4]
	hours, _ := strconv.Atoi(digits[:2])
	minutes, _ := strconv.Atoi(digits[2:])
	seconds = 3600*hours + 60*minutes
	if text[0] == '-' {
		seconds = -seconds
	}
	return seconds, minutes < 60 && 60*hours+minutes <= 18*60
}

// takes tells whether what the sink writes for a kind is read as what it is.
func (d *dates) takes(kind record.Kind) bool {
	at := time.Date(2024, 5, 6, 7, 8, 9, 123e6, time.UTC)
	v := record.Number(record.Timestamp, at.UnixMilli())
	if kind == record.Date {
		at = time.Date(2024, 5, 6, 0, 0, 0, 0, time.UTC)
		v = record.Number(kind, at.Unix()/86400)
	}
	text := v.Text(record.Of(kind))
	for _, f := range d.formats {
		if f.read == nil {
			return true // unless the server says otherwise, record by record
		}
		if read, ok := f.parse(text); ok {
			return read.Equal(at)
		}
	}
	return false
}
