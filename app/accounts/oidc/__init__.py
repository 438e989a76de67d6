"""Signing in elsewhere: OpenID Connect with the one provider that the settings name."""
