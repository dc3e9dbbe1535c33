//! Of the provider's tests.
