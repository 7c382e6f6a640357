"""Learning: phantoms and the data lists that a bundle trains on. MONAI belongs here and in `effvit_med.bundle`."""
