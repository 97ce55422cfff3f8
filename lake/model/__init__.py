"""What the lake is made of: times, markets, datasets. Pure: no storage, no network, no clock."""
