package launch

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"reprise/io/journal"
	"reprise/pipelines/redrive"
)

// retryEach is how often a run that goes on looks for dead letters that it is to try again.
const retryEach = 5 * time.Second

// retry sends dead letters again whose delay is over, until ctx ends: each time by a redrive in a process of its own,
// since Beam makes one run at a time in a process. What is set aside so survives this process, and holds nothing up.
func (p prepared) retry(ctx context.Context, j journal.Journal) {
	if p.Job.Retry == nil {
		return
	}
	for {
		select {
		case <-time.After(retryEach):
		case <-ctx.Done():
			return
		}
		ids, err := redrive.Due(ctx, j, p.Run.ID, p.Job, time.Now())
		if err == nil && len(ids) > 0 {
			err = p.redrive(ctx, j)
		}
		if err != nil && ctx.Err() == nil {
			slog.Warn("dead letters are not tried again yet", "run", p.Run.ID, "error", err)
		}
	}
}

// redrive is `reprise redrive RUN --kept --due`.
func (p prepared) redrive(ctx context.Context, j journal.Journal) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	info, err := j.Get(ctx, p.Run.ID)
	if err != nil {
		return err
	}
	file, err := os.CreateTemp("", "reprise-retry-*.yaml")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	if _, err := file.Write(info.JobFile); err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, self, "redrive", p.Run.ID, "--job", file.Name(), "--kept", "--due",
		"--max", strconv.Itoa(len(p.Job.Retry.After)))
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = patience
	if err := cmd.Run(); err != nil {
		slog.Warn("a redrive has failed", "run", p.Run.ID, "said", said.String())
		return err
	}
	slog.Info("dead letters were tried again", "run", p.Run.ID)
	return nil
}
