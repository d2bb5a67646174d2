package record

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// timeForm is what ParseTime reads: date, time of day, zone.
var timeForm = regexp.MustCompile(`^([+-]?\d{4,10})-(\d\d)-(\d\d)` +
	`(?:[Tt ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?)?` +
	`(Z|z|[+-]\d\d(?::?\d\d)?)?$`)

// ParseTime is the one way in which Reprise reads a time from text, in job files, arguments and data: a date as
// 2024-05-01, which is its beginning, or a date with a time of day, after T or a blank, as 12:30, 12:30:05 or with a
// fraction of up to nine digits; each with a zone, as Z, +02, +0200 or +02:00, or without one, which is UTC. These are
// the forms of RFC 3339, those that CQL takes, and what AppendText writes, so a year may have a sign or more than four
// digits.
//
// Digits alone are no time: 2024 may be a year, or milliseconds, and 20240501 a day or seconds.
func ParseTime(s string) (time.Time, error) {
	at, _, err := parseTime(s)
	if err != nil {
		return time.Time{}, fmt.Errorf("%.60q is not a valid time%w", s, err)
	}
	return at, nil
}

// parseTime also tells whether there was a date alone. Its error goes on where "is no time" ends.
func parseTime(s string) (at time.Time, day bool, err error) {
	if len(s) == len(usual) && s[10] == 'T' && s[19] == '.' { // many times as fast
		if at, err := time.Parse(usual, s); err == nil {
			return at, false, nil
		}
	}
	m := timeForm.FindStringSubmatch(s)
	if m == nil {
		if digits := strings.TrimLeft(s, "+-"); digits != "" && strings.Trim(digits, "0123456789") == "" {
			return at, false, errors.New(onlyNumber + timeAdvice)
		}
		return at, false, errors.New("; " + timeAdvice)
	}
	n := func(i int) int {
		v, _ := strconv.Atoi(m[i])
		return v
	}
	at = time.Date(n(1), time.Month(n(2)), n(3), n(4), n(5), n(6), nanosOf(m[7]), time.UTC)
	if int(at.Month()) != n(2) || at.Day() != n(3) || n(4) > 23 || n(5) > 59 || n(6) > 59 {
		return at, false, errors.New(", since there is no such day or time of day")
	}
	if zone := strings.ReplaceAll(m[8], ":", ""); len(zone) > 1 {
		hours, _ := strconv.Atoi(zone[1:3])
		minutes, _ := strconv.Atoi(zone[3:])
		if hours > 23 || minutes > 59 {
			return at, false, errors.New(", since there is no such zone")
		}
		ahead := time.Duration(hours)*time.Hour + time.Duration(minutes)*time.Minute
		if zone[0] == '+' {
			ahead = -ahead
		}
		at = at.Add(ahead)
	}
	return at, m[4] == "" && m[8] == "", nil
}

// usual is how AppendText writes times.
const usual = "2006-01-02T15:04:05.000Z"

const onlyNumber = ": it is only a number, which may be a year, a day, seconds or milliseconds; "

const timeAdvice = "write it as 2024-05-01 or 2024-05-01T12:00:00Z"

// nanosOf is a fraction of a second by its digits.
func nanosOf(fraction string) int {
	n, _ := strconv.Atoi((fraction + "000000000")[:9])
	return n
}

// ErrFiner is why a time with microseconds is no timestamp.
var ErrFiner = errors.New("it has parts of a millisecond, which a timestamp does not hold")

// Reading says how values are read; its zero value is to lose nothing.
type Reading struct {
	CutTimestamps bool // parts of a millisecond are cut off, as if the time were a little earlier
}

// parseTimestamp reads a timestamp.
func (how Reading) parseTimestamp(s string) (Value, error) {
	at, _, err := parseTime(s)
	if err != nil {
		return Value{}, err
	}
	if at.Nanosecond()%1e6 != 0 {
		if !how.CutTimestamps {
			return Value{}, fmt.Errorf(": %w", ErrFiner)
		}
		at = at.Add(-time.Duration(at.Nanosecond() % 1e6))
	}
	ms := at.UnixMilli()
	if !time.UnixMilli(ms).Equal(at) {
		return Value{}, errors.New(": it is too far away")
	}
	return Number(Timestamp, ms), nil
}

// parseDate reads a day.
func parseDate(s string) (Value, error) {
	at, day, err := parseTime(s)
	days := floorDiv(at.Unix(), 86400)
	switch {
	case err != nil:
		return Value{}, err
	case !day:
		return Value{}, errors.New(", which has no time of day and no zone")
	case days != int64(int32(days)):
		return Value{}, errors.New(": it is too far away")
	}
	return Number(Date, days), nil
}

// Millis is a timestamp by a number of milliseconds, where one comes from JSON, a column or a cast, and says no unit.
// What is far too small or too large is refused rather than read as some time around 1970 or in a year of more digits:
// 2024 is hardly meant as milliseconds, nor are seconds (1714564800), days (20240501), microseconds and nanoseconds.
// Zero is 1970, as everywhere.
func Millis(n int64) (Value, error) {
	const least, most = 10_000_000_000, 253_402_300_799_999 // eleven digits, April 1970; the end of the year 9999
	if n != 0 && (n > -least && n < least || n < -62_167_219_200_000 || n > most) {
		return Value{}, fmt.Errorf("%d is not a valid time: as milliseconds, which numbers are here, it would be %s; "+
			"read it as bigint and make a time of it with derive, or write times as text, such as 2024-05-01T12:00:00Z",
			n, Number(Timestamp, n).Text(Of(Timestamp)))
	}
	return Number(Timestamp, n), nil
}

// dayNanos are the nanoseconds of a day.
const dayNanos = int64(24 * time.Hour)

// timeOfDay is the form of a Time; fractions longer than nanoseconds are none.
var timeOfDay = regexp.MustCompile(`^(\d\d):(\d\d):(\d\d)(?:[.,](\d{1,9}))?$`)

// parseTimeOfDay reads a time of day, and as nanoseconds what Cassandra holds beyond one.
func parseTimeOfDay(s string) (Value, error) {
	if number, ok := strings.CutSuffix(s, "ns"); ok {
		n, err := strconv.ParseInt(number, 10, 64)
		if err != nil || n >= 0 && n < dayNanos || strconv.FormatInt(n, 10) != number {
			return Value{}, errParse
		}
		return Number(Time, n), nil
	}
	m := timeOfDay.FindStringSubmatch(s)
	if m == nil {
		return Value{}, errParse
	}
	h, _ := strconv.Atoi(m[1])
	min, _ := strconv.Atoi(m[2])
	sec, _ := strconv.Atoi(m[3])
	if h > 23 || min > 59 || sec > 59 {
		return Value{}, errParse
	}
	return Number(Time, int64(h*3600+min*60+sec)*1e9+int64(nanosOf(m[4]))), nil
}

// appendTimeOfDay is the text of a Time. Cassandra also takes numbers outside of a day; they are written as no reader
// mistakes for a time of day.
func appendTimeOfDay(b []byte, n int64) []byte {
	if n < 0 || n >= dayNanos {
		return append(strconv.AppendInt(b, n, 10), "ns"...)
	}
	return time.Unix(0, n).UTC().AppendFormat(b, "15:04:05.000000000")
}
