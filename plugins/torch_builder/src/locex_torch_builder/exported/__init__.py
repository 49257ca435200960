"""torch.export archives (``.pt2``): checked entry by entry, loaded, trained and written again."""
