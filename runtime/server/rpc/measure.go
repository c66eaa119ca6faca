package rpc

import (
	"fmt"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/switchyard-dev/switchyard/api/proto/inference"
	"github.com/switchyard-dev/switchyard/runtime/protocol"
)

const (
	// varintBytes is what a number of a list takes that may be a byte on the wire.
	varintBytes = 8
	// elementBytes is what an element takes beside its own bytes in a list that grows as it comes.
	elementBytes = 64
)

// contents is the message whose lists are a tensor's data: theirs is the only length that is not bounded.
var contents = (*inference.InferTensorContents)(nil).ProtoReflect().Descriptor()

// measure checks a message as it travels, before anything is made of it: what is accepted must count, and a list is as
// long as those of the protocol are. It returns what the parts take in memory beside their own bytes.
func measure(raw []byte, message protoreflect.MessageDescriptor) (bytes int64, err error) {
	if bytes, err = walk(raw, message); err != nil {
		return 0, protocol.Errorf("malformed request: %v", err)
	}
	return bytes, nil
}

func walk(raw []byte, message protoreflect.MessageDescriptor) (bytes int64, err error) {
	members := map[protowire.Number]int{}
	for len(raw) > 0 {
		number, wire, n := protowire.ConsumeTag(raw)
		if n < 0 {
			return 0, fmt.Errorf("%s: %w", message.Name(), protowire.ParseError(n))
		}
		raw = raw[n:]
		field := message.Fields().ByNumber(number)
		if field == nil {
			return 0, fmt.Errorf("%s: there is no field %d", message.Name(), number)
		}
		if n = protowire.ConsumeFieldValue(number, wire, raw); n < 0 {
			return 0, fmt.Errorf("%s: %w", field.Name(), protowire.ParseError(n))
		}
		value := raw[:n]
		raw = raw[n:]
		took, count, err := measureField(field, wire, value)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", field.Name(), err)
		}
		bytes += took
		switch members[number] += count; {
		case !field.IsList() && !field.IsMap():
			if members[number] > 1 {
				return 0, fmt.Errorf("%s: expected it once, found it twice", field.Name())
			}
		case members[number] > protocol.MaxMembers && message != contents:
			return 0, fmt.Errorf("%s: expected at most %d members, found more", field.Name(), protocol.MaxMembers)
		}
	}
	return bytes, nil
}

// measureField is what a field's value takes beside its own bytes, and how many members of its list it is: one, of a
// field that is no list.
func measureField(
	field protoreflect.FieldDescriptor, wire protowire.Type, value []byte,
) (bytes int64, members int, err error) {
	kind, packed := wireOf(field.Kind()), false
	if wire != kind {
		if packed = wire == protowire.BytesType && field.IsList() && kind != protowire.BytesType; !packed {
			return 0, 0, fmt.Errorf("expected wire type %d, found %d", kind, wire)
		}
	}
	if wire == protowire.BytesType {
		value, _ = protowire.ConsumeBytes(value)
	}
	switch {
	case packed:
		return measurePacked(kind, value)
	case !field.IsList() && !field.IsMap() && field.Message() == nil:
		if field.Kind() == protoreflect.StringKind && !utf8.Valid(value) {
			return 0, 0, fmt.Errorf("expected a text in UTF-8")
		}
		return 0, 1, nil
	case field.Message() != nil:
		bytes, err = walk(value, field.Message())
	}
	if !field.IsList() && !field.IsMap() {
		return bytes, 1, err
	}
	return bytes + elementBytes, 1, err
}

// measurePacked is measureField of a list's numbers, one after the other.
func measurePacked(wire protowire.Type, value []byte) (bytes int64, members int, err error) {
	switch wire { //nolint:exhaustive // others are varints
	case protowire.Fixed32Type:
		return measureFixed(4, value)
	case protowire.Fixed64Type:
		return measureFixed(8, value)
	}
	for len(value) > 0 {
		_, n := protowire.ConsumeVarint(value)
		if n < 0 {
			return 0, 0, protowire.ParseError(n)
		}
		value = value[n:]
		members++
	}
	return varintBytes * int64(members), members, nil
}

// measureFixed is measurePacked of numbers of so many bytes each: they take what they take on the wire.
func measureFixed(size int, value []byte) (bytes int64, members int, err error) {
	if len(value)%size != 0 {
		return 0, 0, fmt.Errorf("expected numbers of %d bytes each, found %d bytes", size, len(value))
	}
	return 0, len(value) / size, nil
}

// wireOf is how a kind of field travels, where it is not packed.
func wireOf(kind protoreflect.Kind) protowire.Type {
	switch kind { //nolint:exhaustive // those that the protocol has
	case protoreflect.FloatKind:
		return protowire.Fixed32Type
	case protoreflect.DoubleKind:
		return protowire.Fixed64Type
	case protoreflect.StringKind, protoreflect.BytesKind, protoreflect.MessageKind:
		return protowire.BytesType
	default:
		return protowire.VarintType
	}
}
