// SPDX-License-Identifier: Apache-2.0

package procedure

import "fmt"

// Payload types name what a DSSE signature is over, so that one kind can never pass as another.
const (
	RecordPayloadType    = "application/vnd.cacert.emergency.record.v1"
	StatementPayloadType = "application/vnd.cacert.emergency.statement.v1"
)

// PAE is the DSSE v1 pre-authentication encoding: what is really signed.
func PAE(payloadType string, payload []byte) []byte {
	return append(fmt.Appendf(nil, "DSSEv1 %d %s %d ", len(payloadType), payloadType, len(payload)), payload...)
}
