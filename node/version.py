"""The version of this software, as `web3_clientVersion` and `psephos --version` say it."""

VERSION = "0.1.0"
