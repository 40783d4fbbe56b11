//! The Dashboard, as a browser without a screen sees it: over plain HTTP, page by page and form by form.
//!
//! [`world`] makes an installation where everything is there that a page can show, and holds the one list of pages and
//! the one list of forms; both are held against the router, so that what is added there has to be added here. What needs
//! a real browser is in [`browser`].

mod access;
mod browser;
mod forgery;
mod hostile;
mod sessions;
mod visit;
mod words;
mod world;
