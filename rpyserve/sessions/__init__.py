"""Sessions, the registry, components, expiry, and how what they hold is migrated after an edit.

Must not know requests, cookies or the console.
"""
