"""The MQTT uplink: what the store holds goes to a broker, in order, until the broker has said yes.

`service.Uplink` is the service, `profile.Profile` the shape of its messages, which docs/messages.md
describes for consumers.
"""
