"""Write files whole or not at all, and lock run folders."""
