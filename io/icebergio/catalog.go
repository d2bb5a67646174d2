package icebergio

import (
	"context"
	"crypto/tls"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/catalog"
	"github.com/apache/iceberg-go/catalog/rest"
	sqlcatalog "github.com/apache/iceberg-go/catalog/sql"
	iceio "github.com/apache/iceberg-go/io"
	_ "github.com/apache/iceberg-go/io/gocloud/s3" // locations that begin with s3://
	"github.com/apache/iceberg-go/table"
	_ "modernc.org/sqlite"

	"reprise/io/icebergio/internal/tables"
	"reprise/transforms/fail"
)

// opened is an open catalog.
type opened struct {
	catalog.Catalog
	db *sql.DB // nil: a REST catalog
}

func (o *opened) close() error {
	var err error
	if c, ok := o.Catalog.(catalog.Closer); ok {
		err = c.Close()
	}
	if o.db != nil {
		err = errors.Join(err, o.db.Close())
	}
	return err
}

// access is how an SQLite file is opened.
type access int

const (
	readWrite access = iota
	create           // where it is not there
	readOnly
)

// open connects to the catalog. An SQLite catalog that is not there is an error unless it may be created.
func (c SinkConfig) open(ctx context.Context, a access) (*opened, error) {
	props, err := c.S3.properties()
	if err != nil {
		return nil, err
	}
	if c.Catalog.REST != "" {
		return c.Catalog.openREST(ctx, props)
	}
	return c.Catalog.openSQLite(props, a)
}

func (c CatalogConfig) openREST(ctx context.Context, props iceberg.Properties) (*opened, error) {
	doing := "catalog " + c.REST
	opts := []rest.Option{rest.WithAdditionalProps(props)}
	if c.Warehouse != "" {
		opts = append(opts, rest.WithWarehouseLocation(c.Warehouse))
	}
	for _, s := range []struct {
		name   string
		secret interface{ Resolve() (string, error) }
		option func(string) rest.Option
	}{{"token", c.Token, rest.WithOAuthToken}, {"credential", c.Credential, rest.WithCredential}} {
		text, err := s.secret.Resolve()
		if err != nil {
			return nil, fail.Job("iceberg.secret", "catalog.%s: %w", s.name, err)
		}
		if text != "" {
			opts = append(opts, s.option(text))
		}
	}
	security, err := c.TLS.Config()
	if err != nil {
		return nil, err
	}
	opts = append(opts, rest.WithTLSConfig(security),
		rest.WithTransportFactory(func(security *tls.Config) (http.RoundTripper, func()) {
			transport := http.DefaultTransport.(*http.Transport).Clone()
			transport.TLSClientConfig, transport.ResponseHeaderTimeout = security, time.Minute
			return transport, transport.CloseIdleConnections
		}))
	cat, err := rest.NewCatalog(ctx, defaultCatalogName, c.REST, opts...)
	if err != nil {
		var unanswered *url.Error // its text has the warehouse's name, too
		if !errors.As(err, &unanswered) && (errors.Is(err, rest.ErrBadRequest) ||
			tables.ContainsAny(err, "NoSuchWarehouse", "arehouse")) {
			return nil, fail.Job("iceberg.warehouse", "%s: %w", doing, err).WithFix("check catalog.warehouse")
		}
		return nil, tables.Classify(err, doing)
	}
	return &opened{Catalog: cat}, nil
}

func (c CatalogConfig) openSQLite(props iceberg.Properties, a access) (*opened, error) {
	doing := "catalog " + c.SQLite
	// Writers wait for each other, else one of them finds the database locked.
	uri := url.URL{Scheme: "file", Opaque: (&url.URL{Path: c.SQLite}).EscapedPath(),
		RawQuery: "_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)"}
	switch _, err := os.Stat(c.SQLite); {
	case err != nil && !errors.Is(err, os.ErrNotExist):
		return nil, tables.Classify(err, doing)
	case err != nil && a != create:
		return nil, fail.Job("iceberg.no_catalog", "%s is not there", doing).
			WithFix("set create: true, or check catalog.sqlite")
	case a == create:
		if err := os.MkdirAll(filepath.Dir(c.SQLite), 0o755); err != nil {
			return nil, tables.Classify(err, doing)
		}
	case a == readOnly:
		uri.RawQuery = "mode=ro&_pragma=busy_timeout(10000)"
	}
	db, err := sql.Open("sqlite", uri.String())
	if err != nil {
		return nil, tables.Classify(err, doing)
	}
	warehouse, err := c.warehouse()
	if err != nil {
		db.Close()
		return nil, err
	}
	props["warehouse"] = warehouse
	props["init_catalog_tables"] = fmt.Sprint(a == create)
	cat, err := sqlcatalog.NewCatalog(c.name(), db, sqlcatalog.SQLite, props)
	if err != nil {
		db.Close()
		return nil, fail.Job("iceberg.catalog", "%s cannot be opened: %w", doing, err).
			WithFix("check that catalog.sqlite names an SQLite file")
	}
	return &opened{Catalog: sqlCatalog{cat}, db: db}, nil
}

func (c CatalogConfig) name() string {
	if c.Name == "" {
		return defaultCatalogName
	}
	return c.Name
}

// warehouse is where new tables go, a folder as an absolute path: it goes into the table.
func (c CatalogConfig) warehouse() (string, error) {
	if strings.Contains(c.Warehouse, "://") {
		return strings.TrimRight(c.Warehouse, "/"), nil
	}
	path, err := filepath.Abs(c.Warehouse)
	if err == nil && !plainLocation(path) {
		err = fmt.Errorf("%s holds characters that URLs escape; use letters, digits and any of / . _ -", path)
	}
	if err != nil {
		return "", fail.Job("iceberg.warehouse", "catalog.warehouse: %w", err)
	}
	return path, nil
}

func (c *S3Config) properties() (iceberg.Properties, error) {
	props := iceberg.Properties{}
	if c == nil {
		return props, nil
	}
	for key, value := range map[string]string{iceio.S3EndpointURL: c.Endpoint, iceio.S3Region: c.Region} {
		if value != "" {
			props[key] = value
		}
	}
	for key, secret := range map[string]interface{ Resolve() (string, error) }{
		iceio.S3AccessKeyID: c.AccessKey, iceio.S3SecretAccessKey: c.SecretKey, iceio.S3SessionToken: c.SessionToken} {
		text, err := secret.Resolve()
		if err != nil {
			return nil, fail.Job("iceberg.secret", "%s: %w", key, err)
		}
		if text != "" {
			props[key] = text
		}
	}
	return props, nil
}

// sqlCatalog tells a lost race from other failures: iceberg-go's SQL catalog returns the failed requirement as a plain
// error, which nobody may take for a commit that has not happened.
type sqlCatalog struct{ *sqlcatalog.Catalog }

// LoadTable implements catalog.Catalog. Commits of the table come through here.
func (c sqlCatalog) LoadTable(ctx context.Context, ident table.Identifier) (*table.Table, error) {
	t, err := c.Catalog.LoadTable(ctx, ident)
	if err != nil {
		return nil, err
	}
	return table.New(t.Identifier(), t.Metadata(), t.MetadataLocation(), t.FS, c), nil
}

// CommitTable implements catalog.Catalog. Requirements are checked before anything is written.
func (c sqlCatalog) CommitTable(ctx context.Context, ident table.Identifier, reqs []table.Requirement,
	updates []table.Update) (table.Metadata, string, error) {
	meta, location, err := c.Catalog.CommitTable(ctx, ident, reqs, updates)
	if err != nil && !errors.Is(err, table.ErrCommitFailed) && strings.HasPrefix(err.Error(), "requirement failed") {
		err = fmt.Errorf("%w: %w", table.ErrCommitFailed, err)
	}
	return meta, location, err
}
