from hypothesis import settings

# A busy machine must not fail a property: time is measured elsewhere.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
