package tables

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/url"
	"strings"
	"syscall"

	"github.com/apache/iceberg-go/catalog/rest"

	"reprise/transforms/fail"
)

// Classify gives an error of the catalog or the file system its class and code. doing tells what failed.
func Classify(err error, doing string) error {
	var known *fail.Error
	var network net.Error
	var request *url.Error
	switch {
	case err == nil, errors.As(err, &known), errors.Is(err, context.Canceled):
		return err
	case fullDisk(err):
		return fail.New(fail.Fatal, "iceberg.disk_full", "%s: the disk is full: %w", doing, err).
			WithFix("free space where the table lies, then run the job again; files that belong to no snapshot can " +
				"be removed (remove_orphan_files)")
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.EROFS):
		return fail.Job("iceberg.warehouse", "%s: %w", doing, err).
			WithFix("give a folder that can be written as the warehouse")
	case errors.Is(err, rest.ErrUnauthorized), errors.Is(err, rest.ErrForbidden), errors.Is(err, rest.ErrOAuthError),
		errors.Is(err, rest.ErrAuthorizationExpired):
		return fail.Unreachable("iceberg.denied", "%s: the catalog refuses: %w", doing, err).
			WithFix("check catalog.token or catalog.credential")
	case ContainsAny(err, "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "StatusCode: 403"):
		return fail.Unreachable("iceberg.denied", "%s: S3 refuses: %w", doing, err).
			WithFix("check s3.access_key and s3.secret_key")
	case ContainsAny(err, "no such table: iceberg_"):
		// Whoever made the file was killed before it made the tables.
		return fail.Job("iceberg.no_catalog", "%s: the SQLite file holds no catalog: %w", doing, err).
			WithFix("set create: true, or check catalog.sqlite")
	case ContainsAny(err, "NoSuchBucket"):
		return fail.Job("iceberg.warehouse", "%s: %w", doing, err).
			WithFix("make the bucket, or name another one as the warehouse")
	case errors.As(err, &network), errors.As(err, &request), errors.Is(err, context.DeadlineExceeded),
		errors.Is(err, rest.ErrServiceUnavailable):
		return fail.Unreachable("iceberg.unreachable", "%s: %w", doing, err).
			WithFix("check that the catalog and the store of the table run and can be reached from here")
	}
	return fail.New(fail.Transient, "iceberg.failed", "%s: %w", doing, err)
}

// fullDisk tells whether a write failed because nothing more goes there: no space, a quota, a size limit.
func fullDisk(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG) ||
		ContainsAny(err, "no space left on device", "database or disk is full")
}

// ContainsAny tells whether the text of an error has one of some words: where a library has no error values to tell by.
func ContainsAny(err error, texts ...string) bool {
	message := err.Error()
	for _, t := range texts {
		if strings.Contains(message, t) {
			return true
		}
	}
	return false
}
