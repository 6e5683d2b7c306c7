package main

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
)

const (
	headerBytes = 16
	// maxMessageBytes is what MongoDB takes.
	maxMessageBytes = 48_000_000
	opMsg           = 2013
	// moreToCome is the flag of an OP_MSG after which its sender expects no answer.
	moreToCome = 1 << 1
)

// turns passes commands on, one at a time over all connections.
//
// MongoDB changes one document atomically: a filter, and the update of what it has found. FerretDB with
// SQLite reads, changes and writes without a transaction around it, so that of two updates at once both
// can find the revision that they were to replace. What takes turns behaves as MongoDB does.
type turns struct {
	server string
	turn   sync.Mutex
}

func (t *turns) serve(listener net.Listener) {
	for {
		client, err := listener.Accept()
		if err != nil {
			return
		}
		go t.pass(client)
	}
}

// pass serves one connection until either side closes it.
func (t *turns) pass(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("unix", t.server)
	if err != nil {
		return
	}
	defer server.Close()
	for {
		request, err := read(client)
		if err != nil {
			return
		}
		answer, err := t.ask(server, request)
		if err != nil {
			return
		}
		if _, err := client.Write(answer); err != nil {
			return
		}
	}
}

// ask passes a command on and waits for its answer, which is empty if there is none to come.
func (t *turns) ask(server net.Conn, request []byte) ([]byte, error) {
	t.turn.Lock()
	defer t.turn.Unlock()
	if _, err := server.Write(request); err != nil {
		return nil, err
	}
	if unanswered(request) {
		return nil, nil
	}
	return read(server)
}

func unanswered(message []byte) bool {
	operation := binary.LittleEndian.Uint32(message[12:])
	return operation == opMsg && len(message) >= headerBytes+4 &&
		binary.LittleEndian.Uint32(message[headerBytes:])&moreToCome != 0
}

// read takes one message, its header included.
func read(from io.Reader) ([]byte, error) {
	header := make([]byte, headerBytes)
	if _, err := io.ReadFull(from, header); err != nil {
		return nil, err
	}
	length := binary.LittleEndian.Uint32(header)
	if length < headerBytes || length > maxMessageBytes {
		return nil, errors.New("a message of an impossible length")
	}
	message := make([]byte, length)
	copy(message, header)
	_, err := io.ReadFull(from, message[headerBytes:])
	return message, err
}
