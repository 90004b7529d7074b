"""Where things are kept: the archive of raw responses and the lake of tables read from them."""
