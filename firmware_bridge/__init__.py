"""Wire format between wearables, dongle and the Pi."""
