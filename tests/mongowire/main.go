// Mongowire serves the MongoDB wire protocol on a loopback address and keeps what it is given in SQLite
// files below a folder: FerretDB, embedded, so that the tests of Slipstream's store need neither a MongoDB
// server nor a container.
//
//	mongowire ADDRESS FOLDER
//
// It says "mongowire is ready" on standard error when it serves, and ends in order on SIGTERM and SIGINT.
//
// FerretDB is reached through a socket in the folder, and one command at a time (see turns.go).
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/FerretDB/FerretDB/ferretdb"
)

// startTimeout is how long FerretDB may take until it listens.
const startTimeout = 30 * time.Second

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "mongowire:", err)
		os.Exit(1)
	}
}

func run() error {
	if len(os.Args) != 3 {
		return errors.New("usage: mongowire ADDRESS FOLDER")
	}
	folder, err := filepath.Abs(os.Args[2])
	if err != nil {
		return err
	}
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	// Before anything else: the address may be taken, and then nothing has to be undone.
	listener, err := net.Listen("tcp", os.Args[1])
	if err != nil {
		return err
	}
	defer listener.Close()

	socket := filepath.Join(folder, "ferretdb.sock")
	// A process that was killed leaves it behind.
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	server, err := ferretdb.New(&ferretdb.Config{
		Listener:  ferretdb.ListenerConfig{Unix: socket},
		Handler:   "sqlite",
		SQLiteURL: "file:" + folder + "/",
	})
	if err != nil {
		return err
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx) }()
	if err := reachable(socket, ended); err != nil {
		return err
	}

	turns := &turns{server: socket}
	go turns.serve(listener)
	fmt.Fprintln(os.Stderr, "mongowire is ready")
	return <-ended
}

// reachable waits until FerretDB, which tells nobody, listens on socket.
func reachable(socket string, ended <-chan error) error {
	for deadline := time.Now().Add(startTimeout); time.Now().Before(deadline); {
		connection, err := net.Dial("unix", socket)
		if err == nil {
			return connection.Close()
		}
		select {
		case err := <-ended:
			return fmt.Errorf("FerretDB has ended: %w", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
	return errors.New("FerretDB does not listen")
}
