"""Every concern of llmnb as one part of the SDK's middleware chain: the flow that drives a part, the tee, the parts."""
