// Publishes CloudEvents with the official SDK for Go, in each way that it has:
//
//	cloudevents <nats url> <subject>
//
// and prints the id of each, a line each, in the order in which they were sent.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	natsproto "github.com/cloudevents/sdk-go/protocol/nats/v2"
	jetstream "github.com/cloudevents/sdk-go/protocol/nats_jetstream/v2"
	cloudevents "github.com/cloudevents/sdk-go/v2"
	"github.com/cloudevents/sdk-go/v2/binding"
	"github.com/cloudevents/sdk-go/v2/client"
	"github.com/nats-io/nats.go"
)

// What an event carries, and how it is given to the SDK.
var data = map[string]func(*cloudevents.Event) error{
	"object": func(event *cloudevents.Event) error {
		return event.SetData(cloudevents.ApplicationJSON, map[string]any{"title": "From an SDK", "metadata": map[string]any{"n": 1}})
	},
	// The SDK marks bytes as binary, whatever they hold, and writes them as data_base64.
	"bytes": func(event *cloudevents.Event) error {
		return event.SetData("application/json; charset=utf-8", []byte(`{"title":"From an SDK","metadata":{"n":1}}`))
	},
	"nothing": func(event *cloudevents.Event) error { return nil },
}

// Order of data: that of a map is another each time.
var kinds = []string{"object", "bytes", "nothing"}

func event(id, kind string) (cloudevents.Event, error) {
	event := cloudevents.NewEvent()
	event.SetID(id)
	event.SetSource("/orders/a%20b?off=50%")
	event.SetType("com.example.order")
	event.SetSubject("caf%E9 \"100%\" é")
	event.SetTime(time.Date(2026, 1, 2, 3, 4, 5, 678900000, time.UTC))
	event.SetExtension("number", 7)
	event.SetExtension("flag", true)
	event.SetExtension("bytes", []byte{0, 255})
	return event, data[kind](&event)
}

func main() {
	url, subject := os.Args[1], os.Args[2]
	connection, err := nats.Connect(url)
	check(err)
	plain, err := natsproto.NewSenderFromConn(connection, subject)
	check(err)
	stored, err := jetstream.NewSenderFromConn(connection, "EVENTS", subject, nil)
	check(err)
	ctx := context.Background()
	for _, protocol := range []struct {
		name   string
		sender any
	}{{"nats", plain}, {"jetstream", stored}} {
		sender, err := cloudevents.NewClient(protocol.sender, client.WithForceStructured())
		check(err)
		asItIs, err := cloudevents.NewClient(protocol.sender)
		check(err)
		for _, mode := range []struct {
			name   string
			client cloudevents.Client
			ctx    context.Context
		}{
			{"structured", sender, ctx},
			{"binary", asItIs, binding.WithForceBinary(ctx)},
			{"default", asItIs, ctx},
		} {
			for _, kind := range kinds {
				id := fmt.Sprintf("%s 100%% %s %s", protocol.name, mode.name, kind)
				event, err := event(id, kind)
				check(err)
				if result := mode.client.Send(mode.ctx, event); cloudevents.IsUndelivered(result) {
					log.Fatalf("%s: %v", id, result)
				}
				fmt.Println(id)
			}
		}
	}
	check(connection.Flush())
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
