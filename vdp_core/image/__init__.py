"""Operations on pictures, one of each."""
