"""Still pictures, alone or numbered as a film, and what their files hold beside them."""
