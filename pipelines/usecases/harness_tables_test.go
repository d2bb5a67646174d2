package usecases_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/gocql/gocql"
)

const whereKey = " WHERE asset_type = ? AND bucket = ? AND id = ?"

// entry is a row of a reverse index: what it is found by, and the other columns.
type entry struct {
	table, column string
	value         any
	title         string
}

func (e entry) id() string { return fmt.Sprint(e.table, e.value) }

// entriesOf are those of an asset.
func entriesOf(a *asset) (all []entry) {
	if a == nil {
		return nil
	}
	for _, tag := range a.Tags {
		all = append(all, entry{"assets_by_tag", "tag", tag, a.Title})
	}
	if a.Title != "" {
		all = append(all, entry{"assets_by_title", "title", a.Title, ""})
	}
	if a.Checksum != "" {
		all = append(all, entry{"assets_by_checksum", "checksum", a.number(), ""})
	}
	return all
}

// entries is production that keeps the reverse indices.
func (c *usecase) entries(k key, was, is *asset, version int64) error {
	now := entriesOf(is)
	batch := c.session.NewBatch(gocql.LoggedBatch)
	for _, e := range entriesOf(was) {
		if !slices.ContainsFunc(now, func(n entry) bool { return n.id() == e.id() }) {
			batch.Query("DELETE FROM "+c.keyspace+"."+e.table+" USING TIMESTAMP ?"+whereKey+" AND "+e.column+" = ?",
				version, k.Kind, k.Bucket, k.ID, e.value)
		}
	}
	for _, e := range now {
		if e.column == "tag" {
			batch.Query("INSERT INTO "+c.keyspace+".assets_by_tag (tag, asset_type, bucket, id, title) VALUES (?, ?, "+
				"?, ?, ?) USING TIMESTAMP ?",
				e.value, k.Kind, k.Bucket, k.ID, e.title, version)
		} else {
			batch.Query("INSERT INTO "+c.keyspace+"."+e.table+" ("+e.column+", asset_type, bucket, id) VALUES (?, ?, "+
				"?, ?) USING TIMESTAMP ?",
				e.value, k.Kind, k.Bucket, k.ID, version)
		}
	}
	return c.session.ExecuteBatch(batch)
}

// rowsOf reads a table: a line of the other columns for each row, by the asset's key.
func (c *usecase) rowsOf(table string, columns ...string) held {
	c.t.Helper()
	h := held{}
	all := c.session.Query("SELECT JSON asset_type, bucket, id, " + strings.Join(columns,
		", ") + " FROM " + c.keyspace + "." + table).Iter()
	for row := ""; all.Scan(&row); {
		values := map[string]any{}
		d := json.NewDecoder(strings.NewReader(row))
		d.UseNumber() // of many digits
		if err := d.Decode(&values); err != nil {
			c.t.Fatalf("%s: %v", row, err)
		}
		line := table
		for _, column := range columns {
			if values[column] == nil {
				values[column] = ""
			}
			line += fmt.Sprintf(" %s=%v", column, values[column])
		}
		h.add(fmt.Sprintf("%s|%s|%s", values["asset_type"], values["bucket"], values["id"]), "%s", line)
	}
	if err := all.Close(); err != nil {
		c.t.Fatal(err)
	}
	return h
}
