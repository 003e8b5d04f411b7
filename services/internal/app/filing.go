// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"

	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/arbitration"
	"cacert.org/emergency/services/notification/channel"
)

// filing lets the arbitration service file disputes over the channel that pages by mail; neither service knows the other.
func (n *Node) filing() (arbitration.Config, error) {
	cfg := arbitration.Config{Address: n.set.DisputeAddress, Link: n.set.base() + "/log/"}
	channels, err := n.channels()
	for _, c := range channels {
		if c.Name() == "mail" {
			cfg.Mailer = letters{c}
		}
	}
	return cfg, err
}

// letters sends letters as pages.
type letters struct{ mail channel.Channel }

// Mail tries once.
func (l letters) Mail(ctx context.Context, x arbitration.Letter) arbitration.Sent {
	r := l.mail.Send(ctx, channel.Page{
		ID: x.ID, Incident: x.Incident, Headline: x.Subject, Text: x.Text, Link: x.Link, Recipient: channel.Recipient{Address: x.To}, At: x.At,
	})
	states := map[channel.State]emergencyv1.DeliveryState{
		channel.Sent: emergencyv1.DeliveryState_DELIVERY_STATE_SENT, channel.Delivered: emergencyv1.DeliveryState_DELIVERY_STATE_DELIVERED,
		channel.Failed: emergencyv1.DeliveryState_DELIVERY_STATE_FAILED, channel.Unknown: emergencyv1.DeliveryState_DELIVERY_STATE_UNKNOWN,
	}
	return arbitration.Sent{State: states[r.State], Detail: r.Detail}
}
